/** The provisioning side of the agent protocol, small: hands out orders as a test gives them and keeps what the agent says. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Order = {
  readonly id: string
  readonly verb: string
  readonly args?: Readonly<Record<string, string | number>>
  /** What `GET /agent/data` gives. */
  readonly data?: Buffer
  /** Answers the first progress post with `stop`. */
  readonly stop?: 'at-first-progress'
}
export type Outcome = {
  readonly rc: number
  readonly body: Record<string, unknown>
  readonly progress: readonly string[]
  readonly uploads: ReadonlyMap<string, Buffer>
}
export type AgentServer = Awaited<ReturnType<typeof startAgentServer>>

const LONG_POLL_MS = 20_000
const BODY_LIMIT_BYTES = 64 * 1024 * 1024

/** `files` are served below /files/, without asking who wants them unless the name begins with `private-`. */
export async function startAgentServer(options: {
  readonly token: string
  readonly files?: ReadonlyMap<string, Buffer>
}) {
  const session = 'the-session'
  const refusals: string[] = []
  const hello = Promise.withResolvers<Record<string, unknown>>()
  let dataRequests = 0
  let running:
    | (Order & { progress: string[]; uploads: Map<string, Buffer>; ended: PromiseWithResolvers<Outcome> })
    | null = null
  let offered = true
  let waiting: (() => void) | null = null

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error as Error))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://agent')
    const bearer = request.headers.authorization?.replace('Bearer ', '')
    const reply = (status: number, text: string | Buffer) => {
      response.writeHead(status, { 'content-length': Buffer.byteLength(text), 'content-type': 'text/plain' }).end(text)
    }
    if (url.pathname.startsWith('/files/')) {
      const name = url.pathname.slice('/files/'.length)
      const file = options.files?.get(name)
      if (name.startsWith('private-') ? bearer !== session : bearer !== undefined) return reply(403, 'wrong bearer\n')
      if (name === 'cut-off' && file) {
        response.writeHead(200, { 'content-length': file.length * 2 })
        response.write(file, () => response.destroy())
        return
      }
      return file ? reply(200, file) : reply(404, 'no such file\n')
    }
    const body = await read(request)
    if (url.pathname === '/agent/hello') {
      const inventory = JSON.parse(body.toString()) as Record<string, unknown>
      if (bearer !== options.token) {
        refusals.push(String(inventory['serial']))
        return reply(409, 'this token was used before: boot the node again\n')
      }
      hello.resolve(inventory)
      return reply(200, `session=${session}\n`)
    }
    if (bearer !== session) return reply(401, 'who are you?\n')
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /agent/order':
        if (offered) await new Promise<void>((resolve) => wait(resolve, response))
        if (offered || !running) return response.destroyed ? undefined : reply(204, '')
        offered = true
        return reply(200, orderText(running))
      case 'GET /agent/data':
        dataRequests += 1
        return reply(200, running?.data ?? Buffer.alloc(0))
      case 'GET /agent/throughput':
        return reply(200, Buffer.alloc(Math.min(Number(url.searchParams.get('bytes')), BODY_LIMIT_BYTES)))
      case 'POST /agent/throughput':
        return reply(200, `bytes=${body.length}\n`)
      case 'POST /agent/progress':
        running?.progress.push(body.toString())
        return reply(200, running?.stop ? 'stop' : 'go')
      case 'POST /agent/upload':
        running?.uploads.set(String(url.searchParams.get('name')), body)
        return reply(200, createHash('sha256').update(body).digest('hex'))
      case 'POST /agent/result': {
        // An agent that is not sure that its result arrived tells it again: then it is about an order that has ended.
        if (url.searchParams.get('order') !== running?.id) return reply(200, '')
        const ended = running
        running = null
        ended?.ended.resolve({ ...ended, rc: Number(url.searchParams.get('rc')), body: JSON.parse(body.toString()) })
        return reply(200, '')
      }
      default:
        return reply(404, 'no such place\n')
    }
  }

  function wait(resolve: () => void, response: ServerResponse): void {
    const timer = setTimeout(resolve, LONG_POLL_MS)
    const done = () => {
      clearTimeout(timer)
      resolve()
    }
    waiting = done
    response.once('close', done)
  }

  return {
    port: (server.address() as AddressInfo).port,
    /** The inventory of the first agent that was let in. */
    hello: hello.promise,
    /** Serial numbers of those that were not. */
    refusals,
    dataRequests: () => dataRequests,
    order(order: Order): Promise<Outcome> {
      running = { ...order, progress: [], uploads: new Map(), ended: Promise.withResolvers<Outcome>() }
      const { promise } = running.ended
      offered = false
      waiting?.()
      return promise
    },
    async close(): Promise<void> {
      waiting?.()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function orderText({ id, verb, args = {} }: Order): string {
  return [`id=${id}`, `verb=${verb}`, ...Object.entries(args).map(([key, value]) => `${key}=${value}`), ''].join('\n')
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > BODY_LIMIT_BYTES) throw new Error(`a body over ${BODY_LIMIT_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
