/** The provisioning listener: boot scripts, ramdisk files, the agents' calls, and phone-home. It trusts nobody. */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Logger } from 'pino'
import { jsonObject } from '../../machines/node/phase.ts'
import type { Blobs } from '../blobs.ts'
import type { Ids } from '../clock.ts'
import type { Commit } from '../commit.ts'
import type { Fleet } from '../fleet.ts'
import type { MasterKey } from '../vault-key.ts'
import type { Agents, Order } from './agents.ts'
import type { Chain, Milestone } from './chain.ts'
import { BOOT_SCRIPT_PATH, FIRST_SCRIPT_PATH, firstStageScript, parseBootFilePath } from './ipxe.ts'
import { openPhoneHome } from './phone-home.ts'
import { openSessions } from './sessions.ts'

export type ListenerTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly chain: Chain
  readonly agents: Agents
  readonly blobs: Blobs
  readonly key: MasterKey
  readonly ids: Ids
  readonly now: () => Date
  readonly log: Logger
  /** Holds vmlinuz, ramdisk.img and burnin.img, as deploy/ramdisk/build.sh makes them. */
  readonly ramdisk_dir: string
  readonly provisioning_url: string
}

/** The most bytes of a result, a hello, or a progress report. */
const MAX_REPORT_BYTES = 1_048_576
/** The most bytes of one uploaded log, or of sectors that were read. */
const MAX_UPLOAD_BYTES = 256 * 1_048_576
/** Uploads up to this size are handed to whoever ordered them, beside being kept. */
const MAX_CONTENT_BYTES = 2 * 1_048_576
/** The most that one throughput test moves in one go. */
const MAX_THROUGHPUT_BYTES = 2 ** 40

const FILES = { kernel: 'vmlinuz', ramdisk: 'ramdisk.img', extra: 'extra.img', burnin: 'burnin.img' } as const
const MILESTONE_OF = {
  kernel: 'kernel',
  ramdisk: 'ramdisk',
  extra: 'ramdisk',
  burnin: 'burn-in-tools',
} as const satisfies Record<string, Milestone>

export type ListenerEnv = { Bindings: { incoming: { socket: { remoteAddress?: string } } } }
const addressOf = (c: Context<ListenerEnv>) => (c.env.incoming.socket.remoteAddress ?? '').replace(/^::ffff:/, '')
const bearerOf = (c: Context<ListenerEnv>) => /^Bearer (.+)$/.exec(c.req.header('authorization') ?? '')?.[1] ?? ''

export const openListener = (tools: ListenerTools): Hono<ListenerEnv> => {
  const { fleet, commit, chain, log, provisioning_url, ramdisk_dir } = tools
  const sessions = openSessions(tools)
  const phoneHome = openPhoneHome(fleet, commit)
  const app = new Hono<ListenerEnv>()
  app.onError((error, c) => {
    log.error({ err: error, path: c.req.path }, 'a provisioning request failed unexpectedly')
    return c.text('the service could not answer\n', 500)
  })

  app.get(FIRST_SCRIPT_PATH, (c) => c.text(firstStageScript({ base_url: provisioning_url })))
  app.get(BOOT_SCRIPT_PATH, async (c) => {
    const mac = (c.req.query('mac') ?? '').toLowerCase()
    if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac)) return c.text('#!ipxe\necho no MAC in the request\nexit\n', 400)
    const { uuid = '', serial = '', firmware = '' } = c.req.query()
    const short = (text: string) => text.slice(0, 128)
    return c.text(
      await chain.bootScript({
        mac,
        address: addressOf(c),
        uuid: short(uuid),
        serial: short(serial),
        firmware: short(firmware),
      }),
    )
  })
  app.get('/boot/:mac/:file', async (c) => {
    const path = parseBootFilePath(c.req.path)
    if (!path) return c.notFound()
    await chain.observe(path.mac, MILESTONE_OF[path.file])
    return sendFile(c, join(ramdisk_dir, FILES[path.file]))
  })

  app.post('/agent/hello', bodyLimit({ maxSize: MAX_REPORT_BYTES }), async (c) => {
    const inventory = await c.req.json().catch(() => null)
    const hello = await sessions.hello(bearerOf(c), inventory, addressOf(c), (c.req.query('nonce') ?? '').slice(0, 64))
    if (hello.kind === 'welcome') return c.text(`session=${hello.session}\n`)
    log.warn({ address: addressOf(c), reason: hello.reason }, 'an agent was refused')
    return c.text(`${hello.reason}\n`, 403)
  })
  agentRoutes(app, tools, sessions)

  app.post('/phone-home', bodyLimit({ maxSize: MAX_REPORT_BYTES }), async (c) => {
    const isForm = (c.req.header('content-type') ?? '').includes('form')
    const { ok, reason } = await phoneHome(
      isForm ? await c.req.parseBody() : await c.req.json().catch(() => null),
      addressOf(c),
    )
    return c.text(`${reason}\n`, ok ? 200 : 404)
  })
  return app
}

const agentRoutes = (
  app: Hono<ListenerEnv>,
  { agents, blobs, commit, fleet }: ListenerTools,
  sessions: ReturnType<typeof openSessions>,
) => {
  /** Runs `answer` for a session that is going on; the rest is told that it is over. */
  const known =
    (answer: (c: Context<ListenerEnv>, id: string, order: string) => Response | Promise<Response>) =>
    async (c: Context<ListenerEnv>) => {
      const session = sessions.of(bearerOf(c))
      const order = c.req.query('order') ?? ''
      if (session) return answer(c, session.id, order)
      const over = sessions.wasOf(bearerOf(c))
      if (over && c.req.path === '/agent/result') await late(c, over.id, over.attempt, order)
      return c.text('the session is over\n', 410)
    }
  const late = (c: Context<ListenerEnv>, id: string, attempt: number, order: string) =>
    commit(id, { actor: { kind: 'agent', name: addressOf(c) } }, () => [
      { type: 'LateReportReceived', data: { attempt, what: `result of order ${order.slice(0, 64)}` } },
    ])
  /** Whether an order is of the attempt and the step that the node is at. */
  const isAwaited = (id: string, order: string) => {
    const work = fleet.get(id)?.work
    return work !== undefined && work !== null && order.startsWith(`${work.request.revision}.${work.cursor}.`)
  }

  app.get(
    '/agent/order',
    known(async (c, id) => {
      const order = await agents.poll(id, c.req.raw.signal)
      return order ? c.text(orderText(order)) : c.body(null, 204)
    }),
  )
  app.post(
    '/agent/progress',
    bodyLimit({ maxSize: MAX_REPORT_BYTES }),
    known(async (c, id, order) => {
      const fields = Object.fromEntries((await c.req.text()).split('\n').map((line) => line.split('=', 2)))
      const unit = fields['unit'] === 'seconds' ? 'seconds' : 'bytes'
      const progress = { done: Number(fields['done']) || 0, total: Number(fields['total']) || 0, unit } as const
      return c.text(`${agents.progress(id, order, progress, isAwaited(id, order))}\n`)
    }),
  )
  app.post(
    '/agent/result',
    bodyLimit({ maxSize: MAX_REPORT_BYTES }),
    known(async (c, id, order) => {
      const body = jsonObject.safeParse(await c.req.json().catch(() => null))
      if (!body.success) return c.text('the result is not a JSON object\n', 400)
      if (!isAwaited(id, order)) {
        await late(c, id, Number(order.split('.')[0]) || 0, order)
        return c.text('too late: recorded, and nothing moved\n')
      }
      agents.end(id, order, Number(c.req.query('rc') ?? 1), body.data)
      return c.text('ok\n')
    }),
  )
  app.post(
    '/agent/upload',
    bodyLimit({ maxSize: MAX_UPLOAD_BYTES }),
    known(async (c, id, order) => {
      const body = c.req.raw.body
      if (!body) return c.text('nothing was sent\n', 400)
      const { sha256, bytes } = await blobs.put(Readable.fromWeb(body as never), { limit_bytes: MAX_UPLOAD_BYTES })
      const stream = bytes <= MAX_CONTENT_BYTES ? await blobs.get(sha256) : null
      const content = stream ? Buffer.concat(await stream.toArray()) : null
      agents.upload(id, order, (c.req.query('name') ?? 'log').slice(0, 64), { sha256, bytes, content })
      return c.text(`${sha256}\n`)
    }),
  )
  app.get(
    '/agent/data',
    known((c, id, order) => {
      const data = agents.dataOf(id, order)
      if (!data) return c.text('that order has no data\n', 404)
      return 'file' in data ? sendFile(c, data.file) : c.body(new Uint8Array(data))
    }),
  )
  app.get(
    '/agent/throughput',
    known((c) => {
      const bytes = Math.min(Number(c.req.query('bytes')) || 0, MAX_THROUGHPUT_BYTES)
      return c.body(zeros(bytes), 200, { 'content-length': String(bytes) })
    }),
  )
  app.post(
    '/agent/throughput',
    known(async (c) => {
      let bytes = 0
      for await (const chunk of c.req.raw.body ?? []) bytes += (chunk as Uint8Array).length
      return c.text(`bytes=${bytes}\n`)
    }),
  )
}

/** One line each; a value can hold no newline, so that a shell can read it without evaluating anything. */
const orderText = ({ id, verb, args }: Order): string =>
  [['id', id] as const, ['verb', verb] as const, ...Object.entries(args)]
    .map(([key, value]) => `${key}=${String(value).replaceAll('\n', ' ')}`)
    .join('\n')
    .concat('\n')

const sendFile = async (c: Context, path: string): Promise<Response> => {
  const found = await stat(path).catch(() => null)
  if (!found?.isFile()) return c.text('no such file here\n', 404)
  const headers = { 'content-length': String(found.size), 'content-type': 'application/octet-stream' }
  return c.body(Readable.toWeb(createReadStream(path)) as ReadableStream<Uint8Array>, 200, headers)
}

const CHUNK = new Uint8Array(65_536)
const zeros = (bytes: number): ReadableStream<Uint8Array> => {
  let left = bytes
  return new ReadableStream({
    pull(controller) {
      if (left <= 0) return controller.close()
      const size = Math.min(left, CHUNK.length)
      left -= size
      controller.enqueue(size === CHUNK.length ? CHUNK.slice() : new Uint8Array(size))
    },
  })
}
