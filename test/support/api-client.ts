/** A caller of the operators' API: kept-alive connections, and the log as it is told live. */
import { Agent, type ClientRequest, request } from 'node:http'

/** No answer takes longer, short of a hang. */
const ANSWER_DEADLINE_MS = 30_000

export type Answer = { readonly status: number; readonly body: string }

/** One server-sent event: its name, its id (a position), and its data, not parsed. */
export type Told = { readonly event: string; readonly id: string; readonly data: string }

export const openClient = (url: string, { connections = 8 } = {}) => {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const streams = new Set<ClientRequest>()

  const send = (method: 'GET' | 'POST', path: string, body?: object): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? '' : JSON.stringify(body)
      const headers =
        body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
      const asked = request(url + path, { method, agent, headers, timeout: ANSWER_DEADLINE_MS }, (response) => {
        let answer = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          answer += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: answer }))
        response.on('error', reject)
      })
      asked.on('timeout', () => asked.destroy(new Error(`${method} ${path}: no answer in ${ANSWER_DEADLINE_MS} ms`)))
      asked.on('error', reject)
      asked.end(text)
    })

  return {
    get: (path: string) => send('GET', path),
    post: (path: string, body: object = {}) => send('POST', path, body),
    /** Calls `onTold` for every event after a position, history first; the promise resolves when the connection ends. */
    follow(
      onTold: (told: Told) => void,
      { after, query = '' }: { after?: string; query?: string } = {},
    ): Promise<void> {
      return new Promise((resolve) => {
        const headers = after === undefined ? {} : { 'last-event-id': after }
        const asked = request(`${url}/v1/events${query}`, { headers }, (response) => {
          const parse = parser(onTold)
          response.setEncoding('utf8')
          response.on('data', parse)
          response.on('close', done)
        })
        const done = () => {
          streams.delete(asked)
          resolve()
        }
        streams.add(asked)
        // A service that is killed resets the connection: for a follower that is an end like any other.
        asked.on('error', done)
        asked.end()
      })
    },
    close() {
      for (const stream of streams) stream.destroy()
      agent.destroy()
    },
  }
}

/** Takes the text of a stream in pieces as they come, and tells its events one by one. */
const parser = (onTold: (told: Told) => void) => {
  let rest = ''
  return (chunk: string) => {
    const text = rest + chunk
    let start = 0
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n', start)) {
      const block = text.slice(start, end)
      start = end + 2
      if (!block.startsWith(':'))
        onTold({ event: field(block, 'event'), id: field(block, 'id'), data: field(block, 'data') })
    }
    rest = text.slice(start)
  }
}

const field = (block: string, name: string): string => {
  const begin = block.startsWith(`${name}: `) ? 0 : block.indexOf(`\n${name}: `) + 1
  if (begin === 0 && !block.startsWith(`${name}: `)) return ''
  const end = block.indexOf('\n', begin)
  return block.slice(begin + name.length + 2, end === -1 ? undefined : end)
}
