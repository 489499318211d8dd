/** The service put together: everything that it is made of, in the order in which it starts, and ends in reverse. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { stateOf } from '../machines/node/machine.ts'
import { openBlobs } from './blobs.ts'
import { openBmcs } from './bmcs.ts'
import { openAgents } from './boot/agents.ts'
import { imageCache, imageSpec } from './boot/images.ts'
import { openClaims } from './claims.ts'
import { type Clock, type Ids, randomIds, systemClock } from './clock.ts'
import { openCommit } from './commit.ts'
import type { Config } from './config.ts'
import { PlanRefused } from './drivers/driver.ts'
import { loadDrivers } from './drivers/registry.ts'
import { openLanes } from './effects/lanes.ts'
import { watchPower } from './effects/power-watch.ts'
import { openRunner } from './effects/runner.ts'
import { openEnroll } from './enroll.ts'
import { openFleet } from './fleet.ts'
import { openHandle } from './handle.ts'
import { openApi } from './http/api.ts'
import type { Check } from './http/service.ts'
import { openPrepare } from './prepare.ts'
import { openProvisioning } from './provisioning.ts'
import { serve } from './serve.ts'
import { embeddedStore } from './store/embedded.ts'
import type { EventStore } from './store/port.ts'
import { openVault } from './vault.ts'
import { masterKeyFrom } from './vault-key.ts'

export type Service = {
  /** Resolves when history is read and unfinished work is taken up. */
  readonly ready: Promise<void>
  /** Where the operators' API listens: a URL, for a socket of our own. */
  readonly url: string
  /** Rejects when something ended that must not. */
  readonly failed: Promise<never>
  close(): Promise<void>
}

/** What a simulator may put in the place of the real thing. */
export type Parts = { readonly store: EventStore; readonly clock: Clock; readonly ids: Ids }

export const startService = async (config: Config, log: Logger, parts: Partial<Parts> = {}): Promise<Service> => {
  const { clock = systemClock, ids = randomIds } = parts
  const stop = new AbortController()
  const { signal } = stop
  /** Later than `stop`: what was appended last must still be folded, or its writer would wait for ever. */
  const stopFolding = new AbortController()

  await mkdir(config.data_dir, { recursive: true, mode: 0o700 })
  const key = masterKeyFrom({ value: config.master_key, file: join(config.data_dir, 'master.key') })
  const store = parts.store ?? embeddedStore({ path: config.store_path })
  const vault = openVault({ path: join(config.data_dir, 'vault.db'), masterKey: key })
  const blobs = await openBlobs(join(config.data_dir, 'blobs'))
  const images = await imageCache({
    dir: join(config.data_dir, 'images'),
    allowed_dirs: config.image_folders,
    limit_bytes: config.image_cache_bytes,
  })
  const drivers = await loadDrivers(config.drivers_dir)

  const fleet = openFleet(store)
  const commit = openCommit(store, fleet, clock, ids)
  const claims = openClaims(store, fleet, clock, ids)
  const agents = openAgents(clock.now)
  const { provisioning_url } = config
  const checkImage = (image: object) => {
    const parsed = imageSpec.safeParse(image)
    const [issue] = parsed.error?.issues ?? []
    if (issue) throw new PlanRefused(['image', ...issue.path].join('.'), issue.message)
  }
  const prepare = openPrepare({ claims, vault, drivers, checkImage })
  const enroll = openEnroll({ commit, claims, vault, drivers, ids })
  const handle = openHandle({ fleet, commit, drivers, prepare, ids, deadlines: config.deadlines_s })

  const bmcs = openBmcs(drivers, vault)
  const bmcOf = bmcs.of
  const watch = fleet.watch
  const services = { agents, images, blobs, vault, claims, ids, watch, log, provisioning_url }
  const lanes = openLanes(config.lanes)
  const runner = openRunner({ fleet, commit, drivers, bmcOf, services, lanes, clock, log })
  const provisioning = openProvisioning(config, { fleet, commit, store, agents, blobs, key, clock, ids, log })

  const shred = (id: string) => {
    try {
      vault.shred(id)
    } catch (error) {
      log.error(
        { err: error, node: id },
        'the secrets of a forgotten node could not be destroyed; tried again at the next start',
      )
    }
  }
  // What is held for a node goes when its work, or the node itself, is over.
  fleet.listen((id, event, after, before) => {
    if (before.work && before.work.request.revision !== after.work?.request.revision) agents.forget(id)
    if (event.type !== 'NodeForgotten') return
    bmcs.forget(id)
    shred(id)
  })

  const checks: Record<string, Check> = {
    log: () => (fleet.isReady() ? fleet.trouble() : 'history is still being read'),
  }
  const api = openApi({ store, fleet, handle, enroll, runner, drivers, blobs, log, checks, signal })

  const failure = Promise.withResolvers<never>()
  failure.promise.catch(() => {})
  const following = fleet.run(stopFolding.signal).catch(failure.reject)
  const ready = fleet.ready.then(() => {
    // Should the service have died between a node's end and that of its secrets.
    for (const [id, node] of fleet.entries()) if (stateOf(node) === 'forgotten') vault.shred(id)
    log.info({ nodes: fleet.size() }, 'history is read')
  })
  const running = runner.run(signal).catch(failure.reject)
  const watching = watchPower({ fleet, commit, bmcOf, clock, log, every_s: config.power_poll_s }, signal).catch(
    failure.reject,
  )

  const served = await serve(api, config.api)
  const network = await provisioning.start(signal)
  Object.assign(checks, network?.checks)

  return {
    ready,
    url: served.url,
    failed: failure.promise,
    async close() {
      stop.abort()
      await Promise.all([running, watching, network?.close(), served.close()])
      stopFolding.abort()
      await following
      await store.close()
      vault.close()
    },
  }
}
