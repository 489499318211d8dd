/** What every event store must do, whichever it is: run over each adapter, on a log that others may be writing too. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { suite, type TestContext, test } from 'node:test'
import {
  AppendTooLarge,
  type EventStore,
  MAX_APPEND_BYTES,
  NO_STREAM,
  type Recorded,
  RevisionConflict,
} from '../../src/store/port.ts'
import { anEvent, events, isEvent, told } from '../support/store-events.ts'

/** A log, and what becomes of it when the process that uses it is started anew. */
export type Opened = { readonly store: EventStore; reopen(): Promise<EventStore> }

const ids = (recorded: readonly { readonly id: string }[]) => recorded.map((event) => event.id)

export const storeContract = (name: string, open: (t: TestContext) => Promise<Opened>) =>
  suite(`the ${name} store`, { timeout: 120_000 }, () => {
    const start = async (t: TestContext) => ({ ...(await open(t)), prefix: `test-${randomUUID()}-` })

    suite('appends', () => {
      test('number a stream from 0 and keep the event as it was given', async (t) => {
        const { store, prefix } = await start(t)
        const event = anEvent({ text: 'ö \u0000 "', list: [1, null, true], nested: { deep: -0.5 } })
        const appended = await store.append(`${prefix}a`, NO_STREAM, [event])
        assert.equal(appended.revision, 0)
        assert.deepEqual(await store.read(`${prefix}a`), [
          { ...event, stream: `${prefix}a`, revision: 0, position: appended.position },
        ])
      })

      test('are refused when decided on an old revision, and nothing of them is kept', async (t) => {
        const { store, prefix } = await start(t)
        await store.append(`${prefix}a`, NO_STREAM, events(2))
        for (const expected of [NO_STREAM, 0, 2, 7]) {
          await assert.rejects(store.append(`${prefix}a`, expected, events(3)), (error) => {
            assert.ok(error instanceof RevisionConflict)
            assert.deepEqual(
              { stream: error.stream, expected: error.expected, actual: error.actual },
              { stream: `${prefix}a`, expected, actual: 1 },
            )
            return true
          })
        }
        await assert.rejects(store.append(`${prefix}new`, 0, events(1)), RevisionConflict)
        assert.equal((await store.read(`${prefix}a`)).length, 2)
        assert.deepEqual(await store.read(`${prefix}new`), [])
      })

      test('that are repeated with the same ids and revision are exact, at once and after others went on', async (t) => {
        const { store, prefix } = await start(t)
        const batch = events(3)
        const first = await store.append(`${prefix}a`, NO_STREAM, batch)
        assert.deepEqual(await store.append(`${prefix}a`, NO_STREAM, batch), first)
        await store.append(`${prefix}a`, 2, events(2))
        assert.deepEqual(await store.append(`${prefix}a`, NO_STREAM, batch), first)
        assert.equal((await store.read(`${prefix}a`)).length, 5)
      })

      test('that are repeated are exact after a restart', async (t) => {
        const { store, reopen, prefix } = await start(t)
        const batch = events(2)
        const first = await store.append(`${prefix}a`, NO_STREAM, batch)
        const again = await reopen()
        assert.deepEqual(await again.append(`${prefix}a`, NO_STREAM, batch), first)
        assert.equal((await again.append(`${prefix}a`, 1, events(1))).revision, 2)
      })

      test('that only partly repeat what is there are conflicts', async (t) => {
        const { store, prefix } = await start(t)
        const [a, b, c] = [anEvent(), anEvent(), anEvent()]
        await store.append(`${prefix}a`, NO_STREAM, [a, b])
        for (const batch of [
          [a, c],
          [a, b, c],
          [c, b],
          [b, a],
        ])
          await assert.rejects(store.append(`${prefix}a`, NO_STREAM, batch), RevisionConflict)
        await assert.rejects(store.append(`${prefix}a`, 0, [a]), RevisionConflict)
      })

      test('made at the same moment see each other in the order they were made', async (t) => {
        const { store, prefix } = await start(t)
        const lost = anEvent()
        const results = await Promise.allSettled([
          store.append(`${prefix}a`, NO_STREAM, events(2)),
          store.append(`${prefix}a`, NO_STREAM, [lost]),
          store.append(`${prefix}a`, 1, events(1)),
          store.append(`${prefix}b`, NO_STREAM, events(1)),
        ])
        assert.deepEqual(
          results.map((result) => (result.status === 'fulfilled' ? result.value.revision : result.reason.name)),
          [1, 'RevisionConflict', 2, 0],
        )
        assert.ok(!ids(await store.read(`${prefix}a`)).includes(lost.id))
      })

      test('by many writers to one stream: exactly one wins each revision', async (t) => {
        const { store, prefix } = await start(t)
        const rounds = 20
        const won = await Promise.all(
          Array.from({ length: 8 }, async () => {
            let wins = 0
            for (let expected = NO_STREAM; expected < rounds - 1; expected++) {
              const outcome = await store.append(`${prefix}a`, expected, events(1)).catch((error) => error)
              if (!(outcome instanceof RevisionConflict)) wins += 1
            }
            return wins
          }),
        )
        assert.equal(
          won.reduce((sum, wins) => sum + wins, 0),
          rounds,
        )
        assert.deepEqual(
          (await store.read(`${prefix}a`)).map((event) => event.revision),
          Array.from({ length: rounds }, (_, i) => i),
        )
      })

      test('of more than 1 MiB are refused, those of nearly as much are kept', async (t) => {
        const { store, prefix } = await start(t)
        const large = anEvent('x'.repeat(MAX_APPEND_BYTES - 1_000))
        assert.equal((await store.append(`${prefix}a`, NO_STREAM, [large])).revision, 0)
        const half = 'ö'.repeat(MAX_APPEND_BYTES / 4)
        await assert.rejects(store.append(`${prefix}a`, 0, [anEvent(half), anEvent(half)]), AppendTooLarge)
        assert.equal((await store.read(`${prefix}a`)).length, 1)
      })

      test('have positions that only ever grow', async (t) => {
        const { store, prefix } = await start(t)
        let before: string | undefined
        for (let i = 0; i < 20; i++) {
          const { position } = await store.append(`${prefix}${i % 3}`, Math.floor(i / 3) - 1, events(1))
          if (before !== undefined)
            assert.ok(store.compare(before, position) < 0 && store.compare(position, before) > 0)
          assert.equal(store.compare(position, position), 0)
          before = position
          const head = await store.head()
          assert.ok(head !== null && store.compare(position, head) <= 0)
        }
        assert.throws(() => store.compare('here', 'there'), TypeError)
      })
    })

    suite('reads', () => {
      test('go both ways, from any revision, as far as asked', async (t) => {
        const { store, prefix } = await start(t)
        await store.append(`${prefix}other`, NO_STREAM, events(3))
        await store.append(`${prefix}a`, NO_STREAM, events(6))
        await store.append(`${prefix}a`, 5, events(4))
        const revisions = async (options: Parameters<EventStore['read']>[1]) =>
          (await store.read(`${prefix}a`, options)).map((event) => event.revision)
        assert.deepEqual(await revisions({}), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        assert.deepEqual(await revisions({ from: 7 }), [7, 8, 9])
        assert.deepEqual(await revisions({ from: 4, limit: 3 }), [4, 5, 6])
        assert.deepEqual(await revisions({ from: 10 }), [])
        assert.deepEqual(await revisions({ limit: 2, direction: 'backwards' }), [9, 8])
        assert.deepEqual(await revisions({ from: 2, direction: 'backwards' }), [2, 1, 0])
        assert.deepEqual(await revisions({ from: 6, limit: 2, direction: 'backwards' }), [6, 5])
        assert.deepEqual(await revisions({ from: 99, limit: 1, direction: 'backwards' }), [9])
      })

      test('of a stream that nobody wrote to are empty', async (t) => {
        const { store, prefix } = await start(t)
        assert.deepEqual(await store.read(`${prefix}none`), [])
        assert.deepEqual(await store.read(`${prefix}none`, { direction: 'backwards', limit: 1 }), [])
      })
    })

    suite('followers', () => {
      test('are told history, once that it ended, then the news', async (t) => {
        const { store, prefix } = await start(t)
        const old = events(3)
        const news = events(2)
        await store.append(`${prefix}a`, NO_STREAM, old)
        let sent: Promise<unknown> | undefined
        const all = await told(store, { prefixes: [prefix] }, (items) => {
          if (items.at(-1) === 'caught-up') sent = store.append(`${prefix}b`, NO_STREAM, news)
          return items.length === 6
        })
        await sent
        assert.deepEqual(
          all.map((item) => (isEvent(item) ? item.id : item)),
          [...ids(old), 'caught-up', ...ids(news)],
        )
      })

      test('go on after the position they have seen', async (t) => {
        const { store, prefix } = await start(t)
        const batch = events(5)
        await store.append(`${prefix}a`, NO_STREAM, batch)
        const [, second] = (await store.read(`${prefix}a`)) as [Recorded, Recorded]
        const all = await told(store, { after: second.position, prefixes: [prefix] }, (i) => i.at(-1) === 'caught-up')
        assert.deepEqual(ids(all.filter(isEvent)), ids(batch.slice(2)))
      })

      test('are told only of streams with the prefixes they ask for', async (t) => {
        const { store, prefix } = await start(t)
        for (const stream of ['node-1', 'claim-1', 'node-2', 'plan-1', 'nod'])
          await store.append(`${prefix}${stream}`, NO_STREAM, events(1))
        const streams = async (prefixes: string[]) =>
          (await told(store, { prefixes }, (items) => items.at(-1) === 'caught-up'))
            .filter(isEvent)
            .map((event) => event.stream.slice(prefix.length))
        assert.deepEqual(await streams([`${prefix}node-`]), ['node-1', 'node-2'])
        assert.deepEqual(await streams([`${prefix}plan-`, `${prefix}claim-`]), ['claim-1', 'plan-1'])
        assert.deepEqual(await streams([`${prefix}nothing`]), [])
      })

      test('miss nothing and are told nothing twice while many write', async (t) => {
        const { store, prefix } = await start(t)
        const [streams, appends] = [10, 60]
        const write = async (stream: string) => {
          for (let i = 0; i < appends; i++) await store.append(stream, i - 1, events(1))
        }
        const writing = Promise.all(Array.from({ length: streams }, (_, i) => write(`${prefix}${i}`)))
        const enough = (items: readonly unknown[]) => items.length > streams * appends
        const readers = Array.from({ length: 4 }, () => told(store, { prefixes: [prefix] }, enough))
        await writing
        const late = told(store, { prefixes: [prefix] }, enough)
        for (const all of await Promise.all([...readers, late])) {
          assert.equal(all.filter((item) => item === 'caught-up').length, 1)
          const seen = all.filter(isEvent)
          assert.equal(seen.length, streams * appends)
          for (let i = 1; i < seen.length; i++)
            assert.ok(store.compare((seen[i - 1] as Recorded).position, (seen[i] as Recorded).position) < 0)
          for (let i = 0; i < streams; i++)
            assert.deepEqual(
              seen.filter((event) => event.stream === `${prefix}${i}`).map((event) => event.revision),
              Array.from({ length: appends }, (_, revision) => revision),
            )
        }
      })

      test('are told live exactly what a replay will tell', async (t) => {
        const { store, prefix } = await start(t)
        const odd = { text: 'x', gone: undefined, minus: -0 }
        let sent: Promise<unknown> | undefined
        const live = await told(store, { prefixes: [prefix] }, (items) => {
          if (items.at(-1) === 'caught-up') sent = store.append(`${prefix}a`, NO_STREAM, [anEvent(odd)])
          return items.length === 2
        })
        await sent
        assert.deepStrictEqual(live.filter(isEvent), await store.read(`${prefix}a`))
      })

      test('end without an error when told to stop', async (t) => {
        const { store, prefix } = await start(t)
        const stop = new AbortController()
        for await (const item of store.follow({ prefixes: [prefix], signal: stop.signal }))
          if (item === 'caught-up') setImmediate(() => stop.abort())
        for await (const _ of store.follow({ prefixes: [prefix], signal: stop.signal })) assert.fail('already stopped')
      })
    })
  })
