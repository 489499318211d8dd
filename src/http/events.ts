/** The log as a stream of server-sent events, from any position, then live; a slow reader slows only itself. */
import type { Hono } from 'hono'
import { NODE_PREFIX } from '../fleet.ts'
import type { EventStore, FollowOptions, Recorded } from '../store/port.ts'
import type { ApiTools, Env } from './api.ts'
import { problem } from './problem.ts'

/** Silence is broken by a comment after this long, so that a dead connection is noticed. */
const HEARTBEAT_MS = 15_000

/** Streams that callers may follow: nodes, and MACs that were seen and belong to none. */
const PUBLIC_PREFIXES = [NODE_PREFIX, 'seen-']

export const eventRoutes = (app: Hono<Env>, { store, fleet, signal }: ApiTools) => {
  app.get('/v1/events', async (c) => {
    const after = c.req.header('last-event-id') ?? c.req.query('after')
    const key = c.req.query('node')
    const found = key === undefined ? null : fleet.find(key)
    if (key !== undefined && !found) return problem(c, 404, 'not-found', `there is no node ${key}`)
    const prefixes = found ? [NODE_PREFIX + found.id] : PUBLIC_PREFIXES
    const stop = new AbortController()
    const ended = AbortSignal.any([stop.signal, c.req.raw.signal, signal])
    const followed = followFrom(store, { after, prefixes, signal: ended })
    if (followed instanceof TypeError) {
      const errors = [{ field: 'Last-Event-ID', detail: followed.message }]
      return problem(c, 400, 'invalid', followed.message, { errors })
    }
    return c.body(eventStream(followed, stop), 200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
  })
}

/** A position that the log does not have is a value: it came from the caller. */
const followFrom = (store: EventStore, options: FollowOptions) => {
  try {
    return store.follow(options)
  } catch (error) {
    if (error instanceof TypeError) return error
    throw error
  }
}

/** Reads the next batch only when the one before has been taken: nothing piles up here. */
const eventStream = (follow: ReturnType<EventStore['follow']>, stop: AbortController): ReadableStream<Uint8Array> => {
  const iterator = follow[Symbol.asyncIterator]()
  const encoder = new TextEncoder()
  let pending: Promise<IteratorResult<readonly Recorded[] | 'caught-up'>> | null = null
  return new ReadableStream({
    async pull(controller) {
      pending ??= iterator.next()
      const next = await withHeartbeat(pending)
      if (next === 'silence') return controller.enqueue(encoder.encode(': still here\n\n'))
      pending = null
      if (next.done) return controller.close()
      const text = next.value === 'caught-up' ? 'event: caught-up\ndata: {}\n\n' : next.value.map(serverSent).join('')
      controller.enqueue(encoder.encode(text))
    },
    cancel() {
      stop.abort()
    },
  })
}

const withHeartbeat = async <T>(pending: Promise<T>): Promise<T | 'silence'> => {
  const silence = Promise.withResolvers<'silence'>()
  const timer = setTimeout(() => silence.resolve('silence'), HEARTBEAT_MS)
  try {
    return await Promise.race([pending, silence.promise])
  } finally {
    clearTimeout(timer)
  }
}

const serverSent = (event: Recorded): string =>
  `id: ${event.position}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
