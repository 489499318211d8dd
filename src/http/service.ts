/** What the service says of itself: alive, ready, its lifecycle, its drivers. */
import type { Hono } from 'hono'
import { z } from 'zod'
import { diagram } from '../../machines/diagram.ts'
import type { ApiTools, Env } from './api.ts'

/** Null when all is well, otherwise what is not, in words. */
export type Check = () => string | null

const RETRY_AFTER_S = 2

export const serviceRoutes = (app: Hono<Env>, { checks, drivers }: ApiTools) => {
  app.get('/healthz', (c) => c.json({ alive: true }))

  app.get('/readyz', (c) => {
    const found = Object.entries(checks).map(([name, check]) => [name, check()] as const)
    const ready = found.every(([, trouble]) => trouble === null)
    const body = { ready, checks: Object.fromEntries(found.map(([name, trouble]) => [name, trouble ?? 'ok'])) }
    return ready ? c.json(body) : c.json(body, 503, { 'retry-after': String(RETRY_AFTER_S) })
  })

  app.get('/v1/lifecycle', (c) =>
    c.req.header('accept')?.includes('text/vnd.mermaid') || c.req.query('format') === 'mermaid'
      ? c.text(diagram().mermaid)
      : c.json(diagram()),
  )

  app.get('/v1/drivers', (c) =>
    c.json({
      drivers: [...drivers].map(([name, { doc, options, secrets, deploy_interfaces }]) => ({
        name,
        doc,
        deploy_interfaces,
        bmc: z.toJSONSchema(options, { io: 'input', unrepresentable: 'any' }),
        secrets: Object.keys(secrets.shape),
      })),
    }),
  )
}
