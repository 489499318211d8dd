/** Puts an application on a socket: an address of its own, or one that a parent opened. */
import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'

/** How long requests that are under way may take when the service ends. */
const CLOSE_GRACE_MS = 2_000
const CLOSE_IDLE_EVERY_MS = 20

/** Any Hono application, whatever its own variables are. */
export type App = { readonly fetch: (request: Request, env: never) => Response | Promise<Response> }

export type Served = { readonly url: string; close(): Promise<void> }

/** @param where `HOST:PORT`, or `fd:NUMBER` for a listening socket that this process was given */
export const serve = (app: App, where: string): Promise<Served> => {
  const server = createServer(getRequestListener((request, env) => app.fetch(request, env as never)))
  const fd = /^fd:(\d+)$/.exec(where)?.[1]
  const [, host = '', port = ''] = /^(.+):(\d+)$/.exec(where) ?? []
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    const done = () => resolve({ url: urlOf(server), close: () => close(server) })
    if (fd !== undefined) server.listen({ fd: Number(fd) }, done)
    else server.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) }, done)
  })
}

const urlOf = (server: Server): string => {
  const address = server.address()
  if (address === null || typeof address === 'string') return ''
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

const close = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
    // A connection that is kept alive is idle once its answer has ended, and would then be waited for.
    const idle = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
    server.close(() => {
      clearTimeout(grace)
      clearInterval(idle)
      resolve()
    })
  })
