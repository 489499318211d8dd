/** How fast the embedded store is on this machine: medians of five rounds, printed as a table. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { embeddedStore } from '../../src/store/embedded.ts'
import type { EventStore, NewEvent } from '../../src/store/port.ts'
import { anEvent } from '../support/store-events.ts'

const ROUNDS = 5
const ROUND_MS = 2_000
const STREAM_EVENTS = 70
const READ_EVENTS = 100_000
/** About 250 bytes, as most of a node's events are. */
const DATA = { step: 'burn-in.memory', outcome: 'passed', figures: [12, 4096, 0.25], reason: 'x'.repeat(120) }

const print = (text: string) => process.stdout.write(`${text}\n`)
const median = (all: number[]) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0
const batchOf = (size: number): NewEvent[] => Array.from({ length: size }, () => anEvent(DATA))

const withStore = async <T>(work: (store: EventStore) => Promise<T>): Promise<T> => {
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-bench-'))
  const store = embeddedStore({ path: join(dir, 'log.sqlite') })
  try {
    return await work(store)
  } finally {
    await store.close()
    rmSync(dir, { recursive: true })
  }
}

/** Each writer fills streams of a node's usual length, one append after the other. */
const appends = (in_flight: number, batch: number, followers: number) =>
  withStore(async (store) => {
    const stop = new AbortController()
    let told = 0
    const following = Array.from({ length: followers }, async () => {
      for await (const news of store.follow({ signal: stop.signal })) if (news !== 'caught-up') told += news.length
    })
    let count = 0
    const cpu = process.cpuUsage()
    const start = performance.now()
    const write = async (writer: number) => {
      for (let stream = 0; ; stream++)
        for (let expected = -1; expected < STREAM_EVENTS; expected += batch) {
          if (performance.now() - start > ROUND_MS) return
          await store.append(`node-${writer}-${stream}`, expected, batchOf(batch))
          count += 1
        }
    }
    await Promise.all(Array.from({ length: in_flight }, (_, writer) => write(writer)))
    const took_s = (performance.now() - start) / 1_000
    const used = process.cpuUsage(cpu)
    stop.abort()
    await Promise.all(following)
    if (told !== count * batch * followers) throw new Error(`${told} events told, ${count * batch * followers} written`)
    return { appends: count / took_s, cpu_us: (used.user + used.system) / count / batch }
  })

const reads = () =>
  withStore(async (store) => {
    for (let i = 0; i < READ_EVENTS; i += 1_000) await store.append('node-long', i - 1, batchOf(1_000))
    let start = performance.now()
    for (let from = 0; from < READ_EVENTS; from += 1_000) await store.read('node-long', { from, limit: 1_000 })
    const stream = READ_EVENTS / (performance.now() - start)
    start = performance.now()
    for await (const batch of store.follow({ signal: AbortSignal.timeout(60_000) })) if (batch === 'caught-up') break
    return { stream: stream * 1_000, follow: (READ_EVENTS / (performance.now() - start)) * 1_000 }
  })

const thousands = (n: number) => `${(n / 1_000).toFixed(1)}k`.padStart(8)

print('in flight  batch  followers   appends/s   events/s   CPU us/event')
for (const [in_flight, batch, followers] of [
  [1, 1, 0],
  [64, 1, 0],
  [512, 1, 0],
  [1, 4, 0],
  [64, 4, 0],
  [512, 4, 0],
  [512, 1, 2],
  [512, 4, 2],
] as const) {
  const rounds = []
  for (let i = 0; i < ROUNDS; i++) rounds.push(await appends(in_flight, batch, followers))
  const per_s = median(rounds.map((round) => round.appends))
  const cpu_us = median(rounds.map((round) => round.cpu_us)).toFixed(1)
  print(
    `${String(in_flight).padStart(9)}  ${String(batch).padStart(5)}  ${String(followers).padStart(9)}    ${thousands(per_s)}   ${thousands(per_s * batch)}   ${cpu_us.padStart(12)}`,
  )
}
const rounds = []
for (let i = 0; i < ROUNDS; i++) rounds.push(await reads())
print(`read one stream, pages of 1,000: ${thousands(median(rounds.map((round) => round.stream)))} events/s`)
print(`follow from the beginning:       ${thousands(median(rounds.map((round) => round.follow)))} events/s`)
