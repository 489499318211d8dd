/** A client of the operators' API: requests, and one stream of events that it folds as the service does. */
import assert from 'node:assert/strict'
import { blank, evolve, type Node, type RecordedNodeEvent, stateOf } from '../../machines/node/machine.ts'
import { feed, type ServerSent } from './feed.ts'

const DEADLINE_MS = 15_000

export type Answer = {
  readonly status: number
  readonly type: string | null
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: what a service answers is for the test to say
  readonly body: any
}

export type Client = Awaited<ReturnType<typeof openClient>>

export const openClient = async (url: string) => {
  const call = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
    const sent = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }
    const response = await fetch(url + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...sent,
    })
    const type = response.headers.get('content-type')
    const text = await response.text()
    const answer: Answer = {
      status: response.status,
      type,
      headers: response.headers,
      body: type?.includes('json') ? JSON.parse(text) : text,
    }
    return answer
  }

  const nodes = new Map<string, Node>()
  const seen: RecordedNodeEvent[] = []
  const waiting = new Set<() => void>()
  const stop = new AbortController()
  const caughtUp = Promise.withResolvers<void>()
  const take = ({ event, data }: ServerSent) => {
    if (event === 'caught-up') return caughtUp.resolve()
    const recorded = JSON.parse(data) as RecordedNodeEvent
    if (!recorded.stream.startsWith('node-')) return
    const id = recorded.stream.slice('node-'.length)
    nodes.set(id, evolve(nodes.get(id) ?? blank, recorded, recorded.at, recorded.meta.command))
    seen.push(recorded)
    for (const look of [...waiting]) look()
  }
  const reading = (async () => {
    try {
      for await (const event of feed(`${url}/v1/events`, stop.signal)) take(event)
    } catch (error) {
      if (!stop.signal.aborted) caughtUp.reject(error)
    }
  })()
  await caughtUp.promise

  /** Resolves once it is so; says what was seen instead when it never is. */
  const wait = <T>(what: string, look: () => T | undefined | false): Promise<T> =>
    new Promise((resolve, reject) => {
      const end = (how: () => void) => {
        clearTimeout(timer)
        waiting.delete(check)
        how()
      }
      const check = () => {
        const found = look()
        if (found !== undefined && found !== false) end(() => resolve(found))
      }
      const timer = setTimeout(() => {
        const story = seen.slice(-12).map(({ type, data }) => `${type} ${JSON.stringify(data).slice(0, 160)}`)
        end(() => reject(new Error(`never came: ${what}\n${story.join('\n')}`)))
      }, DEADLINE_MS)
      timer.unref()
      waiting.add(check)
      check()
    })
  const eventsOf = (id: string) => seen.filter(({ stream }) => stream === `node-${id}`)

  return {
    url,
    call,
    get: (path: string, headers?: Record<string, string>) => call('GET', path, undefined, headers),
    post: (path: string, body?: unknown, headers?: Record<string, string>) => call('POST', path, body, headers),
    async enroll(name: string, more: object = {}): Promise<string> {
      const answer = await call('POST', '/v1/nodes', { name, driver: 'fake', ...more })
      assert.equal(answer.status, 201, JSON.stringify(answer.body))
      return answer.body.id
    },
    /** A command that must be accepted; the node is seen to have taken it when this resolves. */
    async order(id: string, command: string, body: object = {}): Promise<number> {
      const answer = await call('POST', `/v1/nodes/${id}/${command}`, body)
      assert.equal(answer.status, 202, JSON.stringify(answer.body))
      await wait(`revision ${answer.body.revision}`, () => (nodes.get(id)?.revision ?? -1) >= answer.body.revision)
      return answer.body.revision
    },
    node: (id: string): Node => nodes.get(id) ?? blank,
    seen,
    eventsOf,
    wait,
    /** Resolves with the node once it is in that state and nothing is at work on it (or, for a busy state, in it). */
    until: (id: string, state: string): Promise<Node> =>
      wait(`${state} of ${id}`, () => {
        const node = nodes.get(id)
        return node && stateOf(node) === state && (node.work === null || state.endsWith('ing')) && node
      }),
    untilEvent: (id: string, type: string, matches: (data: never) => boolean = () => true) =>
      wait(`${type} of ${id}`, () => eventsOf(id).find((event) => event.type === type && matches(event.data as never))),
    async stop() {
      stop.abort()
      await reading
    },
  }
}
