/** The whole service in this process, as `src/main.ts` starts it, and a client that waits for events, never for time. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { pino } from 'pino'
import { readConfig } from '../../src/config.ts'
import { type Parts, type Service, startService } from '../../src/service.ts'
import { type Client, openClient } from './client.ts'
import { IMAGE } from './image.ts'

export type Bloomery = Client & {
  readonly service: Service
  readonly dir: string
  /** Everything logged so far. */
  readonly log: string[]
  /** Ends this one; safe to call twice. */
  close(): Promise<void>
  /** Ends this one and starts another on what it left. */
  restart(more?: Options): Promise<Bloomery>
}

export type Options = {
  readonly env?: Readonly<Record<string, string>>
  readonly parts?: Partial<Parts>
  readonly dir?: string
}

export const temporaryDirectory = (t: Pick<TestContext, 'after'>): string => {
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-test-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

export const bloomery = async (t: Pick<TestContext, 'after'>, options: Options = {}): Promise<Bloomery> => {
  const { env = {}, parts = {}, dir = temporaryDirectory(t) } = options
  const log: string[] = []
  const config = readConfig({
    BLOOMERY_API: '127.0.0.1:0',
    BLOOMERY_DATA: dir,
    BLOOMERY_POWER_POLL_S: '0',
    BLOOMERY_DRIVERS: join(import.meta.dirname, 'drivers'),
    ...env,
  })
  const service = await startService(config, pino({ level: 'trace' }, { write: (line) => log.push(line) }), parts)
  let client: Client
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= (async () => {
      await client?.stop()
      await service.close()
    })()
    return closing
  }
  t.after(close)
  service.failed.catch((error: unknown) => log.push(`FAILED ${String(error)}`))
  await service.ready
  client = await openClient(service.url)
  const restart = async (more: Options = {}) => {
    await close()
    return bloomery(t, { ...options, parts: {}, ...more, dir })
  }
  return { ...client, service, dir, log, close, restart }
}

/** A fake node at some point of its life. */
export const nodeThatIs = async (
  { enroll, order, until }: Client,
  state: 'enrolled' | 'manageable' | 'available' | 'active',
  { name = 'n1', ...more }: { name?: string; driver?: string; bmc?: object; ports?: string[] } = {},
): Promise<string> => {
  const id = await enroll(name, more)
  if (state === 'enrolled') return id
  await order(id, 'verify')
  await until(id, 'manageable')
  if (state === 'manageable') return id
  await order(id, 'discover')
  await until(id, 'manageable')
  await order(id, 'provide')
  await until(id, 'available')
  if (state === 'available') return id
  await order(id, 'deploy', IMAGE)
  await until(id, 'active')
  return id
}

/** The kinds of events, without what tells nothing of the order. */
export const typesOf = (events: readonly { readonly type: string }[]): string[] => events.map(({ type }) => type)

export const problemOf = (
  answer: { status: number; type: string | null; body: unknown },
  status: number,
  type: string,
) => {
  assert.equal(answer.status, status, JSON.stringify(answer.body))
  assert.equal(answer.type, 'application/problem+json')
  const body = answer.body as Problem
  assert.equal(body.type, `/problems/${type}`)
  assert.equal(body.status, status)
  for (const part of ['title', 'detail', 'instance'] as const) assert.ok(body[part].length > 0, `no ${part}`)
  return body
}
export type Problem = {
  readonly type: string
  readonly title: string
  readonly detail: string
  readonly instance: string
  readonly status: number
  readonly errors?: readonly { readonly field: string; readonly detail: string }[]
  readonly [key: string]: unknown
}
