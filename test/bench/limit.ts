/** The limit of the store alone: the appends that a service made, made once more with nothing around them. */
import { join } from 'node:path'
import { embeddedStore } from '../../src/store/embedded.ts'
import type { NewEvent, Recorded } from '../../src/store/port.ts'

type Append = { readonly stream: string; readonly expected: number; readonly events: NewEvent[]; last: string }

/**
 * What each node had appended, in order and in the batches of the service.
 *
 * The log does not say where an append ends. Events of one append stand next to each other, in one stream, with the
 * same time; two appends that look like that are so rare that the limit does not change by them.
 */
export const appendsIn = async (dir: string, after: string | undefined): Promise<Append[][]> => {
  const store = embeddedStore({ path: join(dir, 'events.db') })
  const nodes = new Map<string, Append[]>()
  let before: Recorded | undefined
  let append: Append | undefined
  try {
    for await (const batch of store.follow({ ...(after ? { after } : {}), signal: AbortSignal.timeout(60_000) })) {
      if (batch === 'caught-up') break
      for (const event of batch) {
        const { stream, revision, position, ...rest } = event
        if (append && before?.stream === stream && before.at === event.at) append.events.push(rest)
        else {
          append = { stream, expected: revision - 1, events: [rest], last: position }
          const claimant = (event.data as { node?: string }).node
          const node = stream.startsWith('claim-') && claimant ? `node-${claimant}` : stream
          const known = nodes.get(node)
          if (known) known.push(append)
          else nodes.set(node, [append])
        }
        before = event
      }
    }
  } finally {
    await store.close()
  }
  return [...nodes.values()]
}

/** Appends them to a new store, so many nodes at a time, each node's one after the other. */
export const replay = async (dir: string, nodes: readonly Append[][], in_flight: number) => {
  const store = embeddedStore({ path: join(dir, 'events.db') })
  try {
    const cpu = process.cpuUsage()
    const started = performance.now()
    const left = [...nodes].reverse()
    const writer = async () => {
      for (let appends = left.pop(); appends; appends = left.pop())
        for (const { stream, expected, events } of appends) await store.append(stream, expected, events)
    }
    await Promise.all(Array.from({ length: in_flight }, writer))
    const took_ms = performance.now() - started
    const used = process.cpuUsage(cpu)
    return { took_ms, cpu_ms: (used.user + used.system) / 1000 }
  } finally {
    await store.close()
  }
}
