/** Queries: what the nodes are, were, and are made of. */
import { Readable } from 'node:stream'
import type { Context, Hono } from 'hono'
import { z } from 'zod'
import { lifeStates, type Node, type RecordedNodeEvent, stateOf } from '../../machines/node/machine.ts'
import { burnInReports } from '../../projections/burn-in-report.ts'
import { history } from '../../projections/history.ts'
import { inventories } from '../../projections/inventory.ts'
import { nodeView, summary } from '../../projections/node-view.ts'
import { NODE_PREFIX, readNodeEvent } from '../fleet.ts'
import type { ApiTools, Env } from './api.ts'
import { etag } from './body.ts'
import { invalid, problem } from './problem.ts'

const PAGE_DEFAULT = 100
const PAGE_MAX = 1000
const HISTORY_MAX = 10_000

const listQuery = z.strictObject({
  state: z.enum(Object.keys(lifeStates) as [string, ...string[]]).optional(),
  driver: z.string().optional(),
  name: z.string().optional().describe('the beginning of a name'),
  maintenance: z.enum(['true', 'false']).optional(),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE_DEFAULT),
  cursor: z.string().optional().describe('as the page before said in `next`'),
})

const historyQuery = z.strictObject({
  after: z.coerce.number().int().min(-1).default(-1).describe('only events after this revision'),
  limit: z.coerce.number().int().min(1).max(HISTORY_MAX).default(PAGE_MAX),
})

export const queryRoutes = (app: Hono<Env>, { fleet, store, runner, blobs }: ApiTools) => {
  app.get('/v1/nodes', (c) => {
    const query = listQuery.safeParse(c.req.query())
    if (!query.success) return invalid(c, query.error, 400)
    const { limit, cursor, ...filter } = query.data
    const wanted = wantedBy(filter)
    // Ids sort by time of enrolment, so a page stays where it is while nodes come and go.
    const page: [string, Node][] = []
    for (const [id, node] of [...fleet.entries()].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if ((cursor !== undefined && id <= cursor) || !wanted(node)) continue
      page.push([id, node])
      if (page.length > limit) break
    }
    const next = page.length > limit ? (page[limit - 1]?.[0] ?? null) : null
    return c.json({ nodes: page.slice(0, limit).map(([id, node]) => summary(id, node)), next })
  })

  const one = (answer: (c: Context, id: string, node: Node) => Response | Promise<Response>) => (c: Context) => {
    const found = fleet.find(c.req.param('key') ?? '')
    return found
      ? answer(c, found.id, found.node)
      : problem(c, 404, 'not-found', `there is no node ${c.req.param('key')}`)
  }
  const eventsOf = async (id: string): Promise<RecordedNodeEvent[]> =>
    (await store.read(NODE_PREFIX + id)).map(readNodeEvent)

  app.get(
    '/v1/nodes/:key',
    one((c, id, node) => {
      const live = runner.live(id)
      return c.json({ ...nodeView(id, node), live }, 200, { etag: etag(node.revision) })
    }),
  )
  app.get(
    '/v1/nodes/:key/history',
    one(async (c, id, node) => {
      const query = historyQuery.safeParse(c.req.query())
      if (!query.success) return invalid(c, query.error, 400)
      const { after, limit } = query.data
      const entries = history(await eventsOf(id)).filter(({ revision }) => revision > after)
      const page = entries.slice(0, limit)
      return c.json({
        id,
        name: node.facts.name,
        events: page,
        next: entries.length > limit ? page.at(-1)?.revision : null,
      })
    }),
  )
  app.get(
    '/v1/nodes/:key/inventory',
    one(async (c, id, node) => {
      const found = inventories(await eventsOf(id))
      return c.json({ id, name: node.facts.name, current: found.at(-1) ?? null, earlier: found.slice(0, -1) })
    }),
  )
  app.get(
    '/v1/nodes/:key/burn-in',
    one(async (c, id, node) => {
      const reports = burnInReports(await eventsOf(id))
      return c.json({ id, name: node.facts.name, latest: reports.at(-1) ?? null, earlier: reports.slice(0, -1) })
    }),
  )
  app.get(
    '/v1/nodes/:key/ports',
    one((c, id, node) => c.json({ id, name: node.facts.name, ports: node.facts.ports })),
  )
  app.get('/v1/blobs/:sha256', async (c) => {
    const sha256 = c.req.param('sha256')
    const stream = /^[0-9a-f]{64}$/.test(sha256) ? await blobs.get(sha256) : null
    return stream
      ? c.body(Readable.toWeb(stream) as ReadableStream<Uint8Array>, 200, {
          'content-type': 'application/octet-stream',
          etag: `"${sha256}"`,
        })
      : problem(c, 404, 'not-found', `there is no document ${sha256}`)
  })
}

const wantedBy = (filter: Omit<z.output<typeof listQuery>, 'limit' | 'cursor'>) => {
  const { state, driver, name, maintenance } = filter
  return (node: Node): boolean =>
    (state === undefined ? stateOf(node) !== 'forgotten' : stateOf(node) === state) &&
    (driver === undefined || node.facts.driver === driver) &&
    (name === undefined || node.facts.name.startsWith(name)) &&
    (maintenance === undefined || (node.facts.maintenance !== null) === (maintenance === 'true'))
}
