/** The embedded store: the contract of every store, then what is its own: files, crashes, full disks, slow readers. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { suite, type TestContext, test } from 'node:test'
import { embeddedStore } from '../../src/store/embedded.ts'
import { type EventStore, NO_STREAM, RevisionConflict, StoreUnavailable } from '../../src/store/port.ts'
import { directory, smallDisk } from '../support/store-directory.ts'
import { anEvent, events, isEvent, told } from '../support/store-events.ts'
import { storeContract } from './contract.ts'

const open = (t: TestContext, path: string): EventStore => {
  const store = embeddedStore({ path })
  t.after(() => store.close())
  return store
}

storeContract('embedded', async (t) => {
  const path = join(directory(t), 'log.sqlite')
  const store = open(t, path)
  return {
    store,
    async reopen() {
      await store.close()
      return open(t, path)
    },
  }
})

suite('the embedded store', { timeout: 120_000 }, () => {
  test('tells followers before it tells the writer', async (t) => {
    const store = open(t, ':memory:')
    const stop = new AbortController()
    const order: string[] = []
    const follower = store.follow({ signal: stop.signal })[Symbol.asyncIterator]()
    assert.equal((await follower.next()).value, 'caught-up')
    const news = follower.next().then(() => order.push('follower'))
    await store.append('a', NO_STREAM, events(1)).then(() => order.push('writer'))
    await news
    stop.abort()
    assert.deepEqual(order, ['follower', 'writer'])
  })

  test('reads a stream whose index is written in bulk as one, also after a restart and backwards', async (t) => {
    const path = join(directory(t), 'log.sqlite')
    const first = open(t, path)
    const total = 9_500
    for (let i = 0; i < total; i += 500)
      await Promise.all([first.append('long', i - 1, events(500, i)), first.append(`short-${i}`, NO_STREAM, events(1))])
    const check = async (store: EventStore) => {
      const all = await store.read('long')
      assert.ok(all.length === total && all.every((event, i) => event.revision === i))
      const middle = await store.read('long', { from: 9_000, limit: 8_000, direction: 'backwards' })
      assert.ok(middle.length === 8_000 && middle.every((event, i) => event.revision === 9_000 - i))
      for (let i = 0; i < total; i += 500) assert.equal((await store.read(`short-${i}`)).length, 1)
    }
    await check(first)
    await first.close()
    await check(open(t, path))
  })

  test('refuses a second writer on the same file, and takes one once the first is gone', async (t) => {
    const path = join(directory(t), 'log.sqlite')
    const first = open(t, path)
    assert.throws(() => embeddedStore({ path }), /StoreUnavailable.*another process is writing it/)
    await first.close()
    await open(t, path).append('a', NO_STREAM, events(1))
  })

  test('refuses a file of a newer version, of another kind, and a directory that is not there', (t) => {
    const dir = directory(t)
    const make = (name: string, sql: string) => {
      const db = new DatabaseSync(join(dir, name))
      db.exec(sql)
      db.close()
      return { path: join(dir, name) }
    }
    assert.throws(
      () => embeddedStore(make('newer', 'PRAGMA user_version = 9')),
      /newer version \(schema 9, known is 1\)/,
    )
    assert.throws(() => embeddedStore(make('other', 'CREATE TABLE cats (name)')), /not an event log/)
    writeFileSync(join(dir, 'text'), 'this is no database at all, it is a plain text file'.repeat(100))
    assert.throws(() => embeddedStore({ path: join(dir, 'text') }), StoreUnavailable)
    assert.throws(() => embeddedStore({ path: join(dir, 'none', 'log') }), StoreUnavailable)
  })

  test('refuses what is no event, alone, without harm to what is written with it', async (t) => {
    const store = open(t, ':memory:')
    const good = store.append('a', NO_STREAM, events(1))
    for (const bad of [
      store.append('b', NO_STREAM, [{ ...anEvent(), id: '1' }]),
      store.append('b', NO_STREAM, [{ ...anEvent(), type: '' }]),
      store.append('b', NO_STREAM, [{ ...anEvent(), data: undefined as never }]),
      store.append('b', NO_STREAM, []),
      store.append('', NO_STREAM, events(1)),
      store.append('b', -2, events(1)),
    ])
      await assert.rejects(bad, TypeError)
    assert.equal((await good).revision, 0)
    assert.throws(() => store.follow({ after: 'x', signal: new AbortController().signal }), TypeError)
    assert.throws(() => store.follow({ after: '77', signal: new AbortController().signal }), /beyond the end/)
  })

  test('tells writers who are faster than the disk, and goes on with what it took', async (t) => {
    const store = open(t, ':memory:')
    const large = 'x'.repeat(1_000_000)
    const results = await Promise.allSettled(
      Array.from({ length: 80 }, (_, i) => store.append(`s-${i}`, NO_STREAM, events(1, large))),
    )
    const taken = results.filter((result) => result.status === 'fulfilled').length
    assert.ok(taken >= 60 && taken < 80, `${taken} were taken`)
    for (const result of results)
      if (result.status === 'rejected') assert.match(String(result.reason), /StoreUnavailable.*cannot keep up/)
    assert.equal((await store.append('later', NO_STREAM, events(1))).revision, 0)
  })

  test('finishes running appends when it is closed, ends its followers, and then refuses', async (t) => {
    const path = join(directory(t), 'log.sqlite')
    const store = open(t, path)
    const ended = told(store, {}, () => false).catch(() => 'ended')
    const running = store.append('a', NO_STREAM, events(1))
    await store.close()
    assert.equal((await running).revision, 0)
    assert.equal(await ended, 'ended')
    await assert.rejects(store.append('a', 0, events(1)), StoreUnavailable)
    await assert.rejects(store.read('a'), StoreUnavailable)
    assert.equal((await open(t, path).read('a')).length, 1)
  })

  test('does not let a slow follower hold back the writers, and still tells it everything', async (t) => {
    const store = open(t, ':memory:')
    const stop = new AbortController()
    t.after(() => stop.abort())
    const slow = store.follow({ signal: stop.signal })[Symbol.asyncIterator]()
    assert.equal((await slow.next()).value, 'caught-up')
    const total = 20_000
    for (let i = 0; i < total; i += 500) await store.append('a', i - 1, events(500))
    let seen = 0
    let most = 0
    while (seen < total) {
      const { value } = await slow.next()
      assert.ok(Array.isArray(value) && value[0].revision === seen)
      seen += value.length
      most = Math.max(most, value.length)
    }
    assert.ok(most <= 512, `it was handed ${most} events at once`)
  })

  test('lets other work run while a follower reads a long history', async (t) => {
    const store = open(t, ':memory:')
    for (let i = 0; i < 10_000; i += 500) await store.append('a', i - 1, events(500))
    let turns = 0
    let counting = true
    const count = () => {
      turns += 1
      if (counting) setImmediate(count)
    }
    setImmediate(count)
    await told(store, { prefixes: ['nothing'] }, (items) => items.length === 1)
    counting = false
    assert.ok(turns >= 15, `other work had ${turns} turns`)
  })

  test('rejects what a full disk cannot hold, shows none of it, and works again when there is room', async (t) => {
    const dir = smallDisk(t, 8)
    if (!dir) return t.skip('needs the right to mount a tmpfs')
    const store = open(t, join(dir, 'log.sqlite'))
    const stop = new AbortController()
    t.after(() => stop.abort())
    const seen: string[] = []
    const following = (async () => {
      for await (const batch of store.follow({ signal: stop.signal }))
        if (batch !== 'caught-up') seen.push(...batch.map((event) => event.id))
    })()
    writeFileSync(join(dir, 'ballast'), Buffer.alloc(5 * 1_048_576))
    const kept: string[] = []
    const expected = [NO_STREAM, NO_STREAM]
    let full: unknown
    for (let i = 0; i < 200 && !full; i++) {
      const batches = [events(4, 'x'.repeat(10_000)), events(4, 'x'.repeat(10_000))]
      const done = await Promise.allSettled(batches.map((batch, s) => store.append(`s-${s}`, expected[s] ?? 0, batch)))
      for (const [s, result] of done.entries()) {
        if (result.status === 'rejected') full = result.reason
        else {
          expected[s] = result.value.revision
          kept.push(...(batches[s] ?? []).map((event) => event.id))
        }
      }
      if (full)
        assert.ok(
          done.every((result) => result.status === 'rejected'),
          'all of a commit, or none',
        )
    }
    assert.ok(full instanceof StoreUnavailable && /full/.test(full.message) && full.cause, String(full))
    await assert.rejects(store.append('s-new', NO_STREAM, events(90, 'x'.repeat(10_000))), StoreUnavailable)
    assert.deepEqual(await store.read('s-new'), [])

    rmSync(join(dir, 'ballast'))
    const batch = events(2)
    assert.equal((await store.append('s-0', expected[0] ?? 0, batch)).revision, (expected[0] ?? 0) + 2)
    await assert.rejects(store.append('s-0', expected[0] ?? 0, events(1)), RevisionConflict)
    kept.push(...batch.map((event) => event.id))
    assert.deepEqual(seen.sort(), kept.sort())
    await store.close()
    await following
    const again = open(t, join(dir, 'log.sqlite'))
    const all = await told(again, {}, (items) => items.at(-1) === 'caught-up')
    assert.deepEqual(
      all
        .filter(isEvent)
        .map((event) => event.id)
        .sort(),
      kept,
    )
  })

  test('keeps every acknowledged append when its process is killed, again and again', async (t) => {
    const path = join(directory(t), 'log.sqlite')
    const acknowledged: string[] = []
    for (let run = 0; run < 5; run++) acknowledged.push(...(await writeUntilKilled(t, path, run)))
    assert.ok(acknowledged.length > 1_000, `only ${acknowledged.length} were acknowledged`)
    const store = open(t, path)
    const there = new Set<string>()
    const revisions = new Map<string, number>()
    for (const event of (await told(store, {}, (items) => items.at(-1) === 'caught-up')).filter(isEvent)) {
      assert.equal(event.revision, (revisions.get(event.stream) ?? -1) + 1)
      revisions.set(event.stream, event.revision)
      there.add(`${event.stream} ${event.revision} ${event.id}`)
    }
    assert.deepEqual(
      acknowledged.filter((line) => !there.has(line)),
      [],
    )
    // An append is two events: none is there by half.
    for (const revision of revisions.values()) assert.equal(revision % 2, 1)
    for (const [stream, revision] of revisions) assert.equal((await store.read(stream)).length, revision + 1)
  })
})

/** Starts the writer, kills it in the middle of its work, and returns the lines that it printed. */
const writeUntilKilled = async (t: TestContext, path: string, run: number): Promise<string[]> => {
  const writer = join(import.meta.dirname, '../support/store-writer.ts')
  const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', writer, path, String(run)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const lines: string[] = []
  if (!child.stdout) throw new Error('no output')
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line)
    if (lines.length === 2_000 + run * 777) child.kill('SIGKILL')
  }
  await exited
  // The last line may have been cut by the kill.
  return lines.filter((line) => /^\S+ \d+ [0-9a-f-]{36}$/.test(line))
}
