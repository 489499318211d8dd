/** The operators' REST API: commands go in by their name, and the machine alone decides whether they are allowed now. */
import { Hono } from 'hono'
import type { Logger } from 'pino'
import { type CommandName, commands } from '../../machines/node/commands.ts'
import type { Blobs } from '../blobs.ts'
import type { Drivers } from '../drivers/registry.ts'
import type { Runner } from '../effects/runner.ts'
import { type Enroll, enrollBody } from '../enroll.ts'
import type { Fleet } from '../fleet.ts'
import type { Handle, Outcome } from '../handle.ts'
import type { EventStore } from '../store/port.ts'
import { actorOf, etag, ifMatch, jsonBody, limited } from './body.ts'
import { eventRoutes } from './events.ts'
import { invalid, onError, problem } from './problem.ts'
import { queryRoutes } from './queries.ts'
import { type Check, serviceRoutes } from './service.ts'

export type ApiTools = {
  readonly store: EventStore
  readonly fleet: Fleet
  readonly handle: Handle
  readonly enroll: Enroll
  readonly runner: Runner
  readonly drivers: Drivers
  readonly blobs: Blobs
  readonly log: Logger
  /** What `/readyz` asks, by name. */
  readonly checks: Readonly<Record<string, Check>>
  /** Aborts when the service ends: what would go on for ever ends then. */
  readonly signal: AbortSignal
}

export type Env = { Variables: { log: Logger } }

export const openApi = (tools: ApiTools): Hono<Env> => {
  const app = new Hono<Env>()
  app.onError(onError)
  app.notFound((c) => problem(c, 404, 'not-found', `nothing answers at ${c.req.path}`))
  app.use(async (c, next) => {
    c.set('log', tools.log)
    await next()
  })
  app.use(limited)
  serviceRoutes(app, tools)
  eventRoutes(app, tools)
  queryRoutes(app, tools)
  commandRoutes(app, tools)
  return app
}

const commandRoutes = (app: Hono<Env>, { handle, enroll }: ApiTools) => {
  app.post('/v1/nodes', async (c) => {
    const body = enrollBody.safeParse(await jsonBody(c))
    if (!body.success) return invalid(c, body.error)
    const { id, command, revision, position } = await enroll(body.data, actorOf(c))
    const answer = { id, name: body.data.name, command, revision, position }
    return c.json(answer, 201, { location: `/v1/nodes/${id}`, etag: etag(revision) })
  })

  const take = (name: CommandName) => async (c: Parameters<typeof jsonBody>[0]) => {
    const body = commands[name].body.safeParse(await jsonBody(c))
    if (!body.success) return invalid(c, body.error)
    const outcome = await handle(c.req.param('key') ?? '', name, body.data as object, actorOf(c), ifMatch(c))
    return answer(c, name, outcome)
  }
  const takers = new Map((Object.keys(commands) as CommandName[]).map((name) => [name as string, take(name)]))
  app.patch('/v1/nodes/:key', take('update'))
  // One route for all: routes that overlap keep Hono from its fast router.
  app.post('/v1/nodes/:key/:command', async (c) => {
    const name = c.req.param('command')
    const taker = takers.get(name)
    if (taker) return taker(c)
    return problem(c, 404, 'not-found', `there is no command ${name}; there are: ${[...takers.keys()].join(', ')}`)
  })
}

const answer = (c: Parameters<typeof jsonBody>[0], name: CommandName, outcome: Outcome) => {
  switch (outcome.kind) {
    case 'accepted': {
      const { id, command, revision, position } = outcome
      return c.json({ id, command, revision, position }, 202, { etag: etag(revision) })
    }
    case 'not-found':
      return problem(c, 404, 'not-found', `there is no node ${c.req.param('key')}`)
    case 'wrong-state': {
      const { state, why, allowed } = outcome
      return problem(c, 409, 'wrong-state', why, { command: name, state, allowed_commands: allowed })
    }
    case 'stale': {
      const detail = `you decided on revision ${outcome.expected}; the node is at ${outcome.revision}`
      return problem(c, 412, 'stale', detail, { revision: outcome.revision })
    }
    case 'unplannable': {
      const { field, reason } = outcome
      return problem(c, 422, 'invalid', `${field}: ${reason}`, { errors: [{ field, detail: reason }] })
    }
  }
}
