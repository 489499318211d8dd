/** A service that is killed and started again, with one node whose hardware outlives it and keeps a journal. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, watch } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openClient, type Told } from '../support/api-client.ts'
import { type ServiceProcess, startProcess } from '../support/process.ts'

/** No wait takes longer, short of a hang. */
const PATIENCE_MS = 30_000

/** How long the pretended hardware takes: long enough to be killed in the middle of it. */
const DELAYS_MS = { 'deploy.write': 1_600, 'boot.tenant': 400, 'burn-in.memory': 300, 'clean.wipe': 300 }
export const CHECKSUM = `sha256:${'5'.repeat(64)}`
const IMAGE = { url: 'http://127.0.0.1/image.raw', format: 'raw', checksum: CHECKSUM }

/** One line of the journal that the pretended hardware keeps. */
export type Did = { readonly did: string; readonly pid: number; readonly to?: string; readonly content?: string }
/** When to kill: at the n-th time from the command on that the log tells an event, or that the hardware does something. */
export type Moment = { readonly event: string; readonly nth?: number } | { readonly did: string; readonly nth?: number }

type Recorded = { readonly stream: string; readonly revision: number; readonly type: string }

/** Commands, and the event that ends what each of them asks for. */
const ENDS = {
  verify: 'VerificationSucceeded',
  discover: 'DiscoverySucceeded',
  provide: 'CleaningSucceeded',
  deploy: 'DeploymentSucceeded',
  undeploy: 'CleaningSucceeded',
} as const
export type Asked = keyof typeof ENDS

export const openMortal = async (t: TestContext) => {
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-crash-'))
  const hardware = join(dir, 'hardware')
  mkdirSync(hardware)
  const state_file = join(hardware, 'node.jsonl')
  const options = { data_dir: join(dir, 'data'), env: { BLOOMERY_POWER_POLL_S: '0' } }
  let service: ServiceProcess | undefined
  let client: ReturnType<typeof openClient> | undefined
  t.after(async () => {
    client?.close()
    await service?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  /** What the log told since the service last started, from its beginning. */
  let told: Told[] = []
  /** What it told, or acknowledged, before: by position. */
  const before = new Map<string, string>()
  let onTold = () => {}

  const start = async () => {
    service = await startProcess(options)
    client = openClient(service.url)
    told = []
    void client.follow((news) => {
      if (news.event !== 'caught-up') told.push(news)
      onTold()
    })
  }
  const until = (what: string, isSo: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (!isSo()) return
        onTold = () => {}
        clearTimeout(late)
        watcher.close()
        resolve()
      }
      const late = setTimeout(() => {
        watcher.close()
        reject(new Error(`${what} did not come; the log told ${told.map(({ event }) => event).join(', ')}`))
      }, PATIENCE_MS)
      const watcher = watch(hardware, look)
      onTold = look
      look()
    })
  const journal = (): Did[] => {
    try {
      const lines = readFileSync(state_file, 'utf8').split('\n').filter(Boolean)
      return lines.map((line) => JSON.parse(line) as Did)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  }
  const count = (event: string) => told.filter((one) => one.event === event).length
  const post = async (path: string, body: object): Promise<{ id: string; position: string }> => {
    const answer = await (client as NonNullable<typeof client>).post(path, body)
    assert.ok(answer.status < 300, `${path}: ${answer.status} ${answer.body}`)
    const acknowledged = JSON.parse(answer.body) as { id: string; position: string }
    before.set(acknowledged.position, '')
    return acknowledged
  }
  const ask = (command: Asked) =>
    post(`/v1/nodes/mortal/${command}`, command === 'deploy' ? { image: IMAGE } : {}).then(() => {})

  await start()
  await post('/v1/nodes', { name: 'mortal', driver: 'fake', bmc: { state_file, delays_ms: DELAYS_MS } })

  return {
    journal,
    /** Gives a command and waits until what it asks for is done. */
    async lead(command: Asked) {
      const ends = count(ENDS[command])
      await ask(command)
      await until(command, () => count(ENDS[command]) > ends)
    },
    /**
     * Gives a command, kills the service at that moment, starts it again, and waits until what was asked is done.
     * Answers whether it was done already when the service died.
     */
    async leadAndKill(command: Asked, moment: Moment): Promise<'done' | 'unfinished'> {
      const ends = count(ENDS[command])
      const times = () =>
        'event' in moment ? count(moment.event) : journal().filter(({ did }) => did === moment.did).length
      const already = times()
      await ask(command)
      await until(JSON.stringify(moment), () => times() >= already + (moment.nth ?? 1))
      await service?.kill()
      client?.close()
      const died = count(ENDS[command]) > ends ? 'done' : 'unfinished'
      for (const { id, data } of told) before.set(id, data)
      await start()
      await until(`${command} after the kill`, () => count(ENDS[command]) > ends)
      return died
    },
    async state(): Promise<string> {
      const answer = await (client as NonNullable<typeof client>).get('/v1/nodes/mortal')
      return (JSON.parse(answer.body) as { state: string }).state
    },
    /** Every position that was told or acknowledged before a kill is there after it, and says the same. */
    assertNothingLost() {
      const now = new Map(told.map(({ id, data }) => [id, data]))
      for (const [position, data] of before) {
        assert.ok(now.has(position), `position ${position} is gone`)
        if (data !== '') assert.equal(now.get(position), data)
      }
      const revisions = told.map(({ data }) => (JSON.parse(data) as Recorded).revision)
      assert.deepEqual(
        revisions,
        revisions.map((_, i) => i),
      )
    },
  }
}

/** No process touches the node after its successor has begun to; none writes outside of its own write. */
export const assertOneWriterAtATime = (journal: readonly Did[]) => {
  const gone = new Set<number>()
  let writer: number | null = null
  let last: number | null = null
  for (const { did, pid } of journal) {
    if (last !== null && last !== pid) gone.add(last)
    assert.ok(!gone.has(pid), `process ${pid} does ${did} after another has taken over`)
    last = pid
    if (did === 'write-begin') writer = pid
    if (did === 'write' || did === 'write-end') assert.equal(writer, pid, `${did} within the write of another process`)
    if (did === 'write-end') writer = null
  }
  assert.equal(writer, null, 'a write was begun and never ended')
}

/** What is on the disk after all that was done to it. */
export const diskAfter = (journal: readonly Did[]): string[] => {
  const disk: string[] = []
  for (const { did, content } of journal) {
    if (did === 'wipe') disk.length = 0
    if (did === 'write' && content) disk[Number(content.split('/').at(-1))] = content
  }
  return disk
}
