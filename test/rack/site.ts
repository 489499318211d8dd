/** A rack with the service in its network: what each test of this folder starts from, and leaves nothing of. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Artefacts, labArtefacts } from '../lab/artefacts.ts'
import type { ImageOptions } from '../lab/image.ts'
import { type Client, openClient } from '../lab/life.ts'
import { type Rack, type RackNode, type RackOptions, startRack } from '../lab/rack.ts'
import { run, textOf } from '../lab/run.ts'
import { type RackService, startRackService } from '../lab/service.ts'

export type SiteOptions = Omit<RackOptions, 'dir'> & {
  readonly image?: ImageOptions
  readonly env?: Readonly<Record<string, string>>
}

export type Site = Artefacts & {
  readonly rack: Rack
  readonly client: Client
  node(i: number): RackNode
  /** After `kill` or `stop`: the same data, the same address. */
  start(): Promise<void>
  kill(): Promise<void>
  stop(): Promise<void>
  /** The service and what it started: command lines of what runs in the rack's network beside its BMCs and machines. */
  processes(): Promise<readonly string[]>
  /** What the service has logged so far. */
  log(): string
  /** Ends everything. @throws Error when the service did not end as told, or left something running */
  close(): Promise<void>
}

export const openSite = async ({ image, env = {}, ...options }: SiteOptions): Promise<Site> => {
  const artefacts = await labArtefacts(image)
  const dir = mkdtempSync(join(tmpdir(), 'site-'))
  const rack = await startRack({ dir: join(dir, 'rack'), ...options })
  const log_file = join(dir, 'service.log')
  let service: RackService | undefined
  let port = 0
  const start = async () => {
    service = await startRackService(rack, {
      data_dir: join(dir, 'data'),
      ramdisk_dir: artefacts.ramdisk_dir,
      image_dirs: [artefacts.image_dir],
      port,
      log_file,
      env: { BLOOMERY_POWER_POLL_S: '0', ...env },
    })
    port = Number(new URL(service.url).port)
  }
  const stop = async () => {
    await service?.stop()
    service = undefined
  }
  const close = async () => {
    const problem = await stop().then(
      () => null,
      (error: unknown) => error,
    )
    const left = await rack.stop()
    rmSync(dir, { recursive: true, force: true })
    if (problem !== null) throw problem
    if (left.length > 0) throw new Error(`left running: ${left.join('; ')}`)
  }
  try {
    await start()
  } catch (error) {
    await close().catch(() => {})
    throw error
  }
  return {
    ...artefacts,
    rack,
    client: openClient(service?.url ?? '', 'tests@bloomery'),
    node(i) {
      const node = rack.nodes[i]
      if (!node) throw new Error(`the rack has no node ${i}`)
      return node
    },
    start,
    async kill() {
      await service?.kill()
      service = undefined
    },
    stop,
    async processes() {
      const pids = (await run(['ip', 'netns', 'pids', rack.namespace])).split('\n').filter(Boolean)
      const lines = pids.map((pid) => textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim())
      return lines.filter((line) => line !== '' && !OF_THE_RACK.test(line))
    },
    log: () => textOf(log_file),
    close,
  }
}

const OF_THE_RACK = /^(ipmi_sim|qemu-system|sh -c|sleep|unshare|ip netns exec|\/bin\/sh .*chassis\.sh)/
