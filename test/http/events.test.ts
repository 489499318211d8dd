/** The log as a stream: history, then news, from any place, without a gap and without an event twice. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { embeddedStore } from '../../src/store/embedded.ts'
import { feed, type ServerSent } from '../support/feed.ts'
import { bloomery, nodeThatIs, problemOf, temporaryDirectory } from '../support/service.ts'

/** Takes from a stream until it has seen enough, and leaves. */
const take = async (t: TestContext, url: string, isEnough: (all: ServerSent[]) => boolean, headers = {}) => {
  const stop = new AbortController()
  t.after(() => stop.abort())
  const all: ServerSent[] = []
  for await (const event of feed(url, stop.signal, headers)) {
    all.push(event)
    if (isEnough(all)) break
  }
  stop.abort()
  return all
}
const isCaughtUp = (all: ServerSent[]) => all.at(-1)?.event === 'caught-up'
const ids = (events: readonly ServerSent[]) => events.flatMap(({ id }) => (id === null ? [] : [id]))

suite('the stream of events', { timeout: 60_000 }, () => {
  test('is history, then a word that it is all, then news', async (t) => {
    const service = await bloomery(t)
    const id = await service.enroll('n1')
    const stop = new AbortController()
    t.after(() => stop.abort())
    const events = feed(`${service.url}/v1/events`, stop.signal)
    const next = async () => (await events.next()).value as ServerSent
    assert.equal((await next()).event, 'NodeEnrolled')
    assert.equal((await next()).event, 'caught-up')
    await service.order(id, 'rename', { name: 'n2' })
    const news = await next()
    const data = JSON.parse(news.data)
    assert.deepEqual([news.event, data.stream, data.revision, data.position], ['NodeRenamed', `node-${id}`, 1, news.id])
    assert.equal(data.meta.actor.kind, 'operator')
  })

  test('goes on where a reader left it, however often it leaves', async (t) => {
    const service = await bloomery(t)
    await nodeThatIs(service, 'active')
    const url = `${service.url}/v1/events`
    const whole = ids(await take(t, url, isCaughtUp))
    assert.ok(whole.length > 30)
    const pieces: string[] = []
    while (pieces.length < whole.length) {
      const last = pieces.at(-1)
      const seen = await take(
        t,
        url,
        (all) => all.length >= 7 || isCaughtUp(all),
        last ? { 'last-event-id': last } : {},
      )
      pieces.push(...ids(seen))
    }
    assert.deepEqual(pieces, whole)
    assert.deepEqual(ids(await take(t, `${url}?after=${whole.at(-2)}`, isCaughtUp)), whole.slice(-1))
  })

  test('has no gap and nothing twice while others write', async (t) => {
    const service = await bloomery(t)
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => service.enroll(`n${i}`)))
    const runs = ids.map((id) => service.order(id, 'verify').then(() => service.until(id, 'manageable')))
    const positions: number[] = []
    for (let last: string | undefined, left = 5; left > 0; left--) {
      const seen = await take(
        t,
        `${service.url}/v1/events`,
        (all) => all.length >= 5,
        last ? { 'last-event-id': last } : {},
      )
      for (const { id } of seen) if (id) positions.push(Number(id))
      last = seen.findLast(({ id }) => id)?.id ?? last
      if (isCaughtUp(seen)) break
    }
    await Promise.all(runs)
    assert.deepEqual(
      positions,
      [...new Set(positions)].sort((a, b) => a - b),
    )
    const all = service.seen
      .map(({ position }) => Number(position))
      .filter((position) => position <= (positions.at(-1) ?? 0))
    assert.deepEqual(positions, all)
  })

  test('can be that of one node, and does not show claims', async (t) => {
    const service = await bloomery(t)
    await service.enroll('n1')
    const id = await service.enroll('n2')
    const seen = await take(t, `${service.url}/v1/events?node=n2`, isCaughtUp)
    assert.deepEqual(
      seen.map(({ event }) => event),
      ['NodeEnrolled', 'caught-up'],
    )
    assert.equal(JSON.parse(seen[0]?.data ?? '').stream, `node-${id}`)
    const all = await take(t, `${service.url}/v1/events`, isCaughtUp)
    assert.deepEqual(
      all.map(({ event }) => event),
      ['NodeEnrolled', 'NodeEnrolled', 'caught-up'],
    )
  })

  test('refuses a place that the log does not have', async (t) => {
    const { get } = await bloomery(t)
    for (const place of ['yesterday', '-1', '99999999', '0x10']) {
      const refused = problemOf(await get('/v1/events', { 'last-event-id': place }), 400, 'invalid')
      assert.deepEqual(
        refused.errors?.map(({ field }) => field),
        ['Last-Event-ID'],
      )
    }
  })

  test('costs nothing once its reader is gone', async (t) => {
    const dir = temporaryDirectory(t)
    const inner = embeddedStore({ path: join(dir, 'events.db') })
    const followers = new Set<AbortSignal>()
    const gone: Promise<unknown>[] = []
    const store: typeof inner = {
      ...inner,
      follow(options) {
        followers.add(options.signal)
        const left = new Promise((resolve) => options.signal.addEventListener('abort', resolve))
        gone.push(left.then(() => followers.delete(options.signal)))
        return inner.follow(options)
      },
    }
    const service = await bloomery(t, { dir, parts: { store } })
    const before = followers.size
    await service.enroll('n1')
    await take(t, `${service.url}/v1/events`, isCaughtUp)
    await gone.at(-1)
    assert.equal(followers.size, before)
  })

  test('ends when the service does', async (t) => {
    const service = await bloomery(t)
    await service.enroll('n1')
    const stop = new AbortController()
    t.after(() => stop.abort())
    const events = feed(`${service.url}/v1/events`, stop.signal)
    await events.next()
    await events.next()
    const rest = events.next()
    await service.close()
    assert.equal((await rest).done, true)
  })
})
