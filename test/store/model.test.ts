/** Whatever is appended, repeated, read and restarted in whatever order: the embedded store agrees with a plain map. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { embeddedStore } from '../../src/store/embedded.ts'
import { type NewEvent, RevisionConflict } from '../../src/store/port.ts'
import { directory } from '../support/store-directory.ts'
import { events, isEvent, told } from '../support/store-events.ts'

const STREAMS = ['a', 'b', 'c']
const RUNS = 60

type Append = { readonly stream: string; readonly expected: number; readonly batch: readonly NewEvent[] }

const stream = fc.constantFrom(...STREAMS)
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('append'),
      stream,
      off: fc.constantFrom(0, 0, 0, -1, 1),
      size: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('repeat'), nth: fc.nat(50) }) },
)
const tick = fc.record({ steps: fc.array(step, { maxLength: 6 }), restart: fc.constantFrom(false, false, false, true) })

/** EventStoreDB's rule, said once more and differently. */
const expectedOutcome = (log: NewEvent[], { expected, batch }: Append): number | 'conflict' => {
  if (log.length - 1 === expected) {
    log.push(...batch)
    return log.length - 1
  }
  const there = log.slice(expected + 1, expected + 1 + batch.length)
  const same = there.length === batch.length && batch.every((event, i) => event.id === there[i]?.id)
  return same && expected < log.length ? expected + batch.length : 'conflict'
}

test('the embedded store agrees with a plain map of arrays', { timeout: 120_000 }, async (t) => {
  const dir = directory(t)
  await fc.assert(
    fc.asyncProperty(fc.array(tick, { maxLength: 12 }), async (ticks) => {
      const path = join(dir, randomUUID())
      let store = embeddedStore({ path })
      try {
        const model = new Map(STREAMS.map((name) => [name, [] as NewEvent[]]))
        const order: string[] = []
        const done: Append[] = []
        for (const { steps, restart } of ticks) {
          if (restart) {
            await store.close()
            store = embeddedStore({ path })
          }
          const running: Promise<void>[] = []
          for (const wanted of steps) {
            const append = 'nth' in wanted ? done[wanted.nth % done.length] : newAppend(model, wanted)
            if (!append) continue
            done.push(append)
            const log = model.get(append.stream) ?? []
            const before = log.length
            const outcome = expectedOutcome(log, append)
            order.push(...log.slice(before).map((event) => event.id))
            running.push(
              store.append(append.stream, append.expected, append.batch).then(
                ({ revision }) => assert.equal(revision, outcome),
                (error) => assert.ok(error instanceof RevisionConflict && outcome === 'conflict', String(error)),
              ),
            )
          }
          await Promise.all(running)
          for (const [name, log] of model)
            assert.deepEqual(
              (await store.read(name)).map((event) => event.id),
              log.map((event) => event.id),
            )
        }
        const all = await told(store, {}, (items) => items.at(-1) === 'caught-up')
        assert.deepEqual(
          all.filter(isEvent).map((event) => event.id),
          order,
        )
      } finally {
        await store.close()
      }
    }),
    { numRuns: RUNS },
  )
})

const newAppend = (model: Map<string, NewEvent[]>, wanted: { stream: string; off: number; size: number }): Append => {
  const last = (model.get(wanted.stream)?.length ?? 0) - 1
  return { stream: wanted.stream, expected: Math.max(-1, last + wanted.off), batch: events(wanted.size) }
}
