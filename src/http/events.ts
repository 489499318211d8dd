/** The log as a stream of server-sent events, from any position, then live; a slow reader slows only itself. */
import type { Hono } from 'hono'
import { NODE_PREFIX } from '../fleet.ts'
import type { EventStore, Position, Recorded } from '../store/port.ts'
import type { ApiTools, Env } from './api.ts'
import { problem } from './problem.ts'

/** Silence is broken by a comment after this long, so that a dead connection is noticed. */
const HEARTBEAT_MS = 15_000

/** Streams that callers may follow: nodes, and MACs that were seen and belong to none. */
const PUBLIC_PREFIXES = [NODE_PREFIX, 'seen-']

export const eventRoutes = (app: Hono<Env>, { store, fleet }: ApiTools) => {
  app.get('/v1/events', async (c) => {
    const after = c.req.header('last-event-id') ?? c.req.query('after')
    const trouble = after === undefined ? null : await notAPosition(store, after)
    if (trouble) return problem(c, 400, 'invalid', trouble, { errors: [{ field: 'Last-Event-ID', detail: trouble }] })
    const key = c.req.query('node')
    const found = key === undefined ? null : fleet.find(key)
    if (key !== undefined && !found) return problem(c, 404, 'not-found', `there is no node ${key}`)
    const prefixes = found ? [NODE_PREFIX + found.id] : PUBLIC_PREFIXES
    const stop = new AbortController()
    c.req.raw.signal.addEventListener('abort', () => stop.abort(), { once: true })
    const body = eventStream(store.follow({ after, prefixes, signal: stop.signal }), stop)
    return c.body(body, 200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
  })
}

const notAPosition = async (store: EventStore, after: Position): Promise<string | null> => {
  try {
    store.compare(after, after)
    return null
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
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

const serverSent = ({ position, ...event }: Recorded): string =>
  `id: ${position}\nevent: ${event.type}\ndata: ${JSON.stringify({ position, ...event })}\n\n`
