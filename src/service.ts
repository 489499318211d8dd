/** The service put together: everything that it is made of, in the order in which it starts, and ends in reverse. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import type { Logger } from 'pino'
import { type Node, stateOf } from '../machines/node/machine.ts'
import { openBlobs } from './blobs.ts'
import type { Bmc } from './bmc/port.ts'
import { openAddresses } from './boot/addresses.ts'
import { openAgents } from './boot/agents.ts'
import { openChain } from './boot/chain.ts'
import { superviseDnsmasq } from './boot/dnsmasq.ts'
import { imageCache, imageSpec } from './boot/images.ts'
import { openListener } from './boot/listener.ts'
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
import { embeddedStore } from './store/embedded.ts'
import type { EventStore } from './store/port.ts'
import { openVault } from './vault.ts'
import { masterKeyFrom } from './vault-key.ts'

/** How long requests that are under way may take when the service ends. */
const CLOSE_GRACE_MS = 2_000

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

  const bmcs = new Map<string, { bmc: Bmc; of: Node['facts']['bmc']; version: number | undefined }>()
  const bmcOf = (id: string, { facts }: Node): Bmc => {
    const known = bmcs.get(id)
    const version = facts.credential?.version
    if (known && known.of === facts.bmc && known.version === version) return known.bmc
    const driver = drivers.get(facts.driver)
    if (!driver) throw new Error(`driver ${facts.driver} is not installed`)
    const secret = facts.credential ? vault.get(id, facts.credential.name, version)?.value : {}
    const bmc = driver.connect(facts.bmc, secret ?? {})
    bmcs.set(id, { bmc, of: facts.bmc, version })
    return bmc
  }

  const watch = fleet.watch
  const services = { agents, images, blobs, vault, claims, ids, watch, log, provisioning_url }
  const lanes = openLanes(config.lanes)
  const runner = openRunner({ fleet, commit, drivers, bmcOf, services, lanes, clock, log })
  // What is held in memory for a node goes when its work, or the node itself, is over.
  fleet.listen((id, event, after, before) => {
    if (before.work && before.work.request.revision !== after.work?.request.revision) agents.forget(id)
    if (event.type !== 'NodeForgotten') return
    bmcs.delete(id)
    vault.shred(id)
  })

  const checks: Record<string, Check> = {
    log: () => (fleet.isReady() ? null : 'history is still being read'),
  }
  const addresses = openAddresses(config.node_range)
  let hostsChanged = () => {}
  fleet.follow((_, __, after, before) => {
    if (addresses.update(before.facts, after.facts, stateOf(after) === 'forgotten')) hostsChanged()
  })
  const chain = openChain({
    fleet,
    commit,
    store,
    agents,
    key,
    clock,
    ids,
    log,
    provisioning_url,
    consoles: config.consoles,
    has_extra: existsSync(join(config.ramdisk_dir, 'extra.img')),
  })
  const listener = openListener({
    fleet,
    commit,
    chain,
    agents,
    blobs,
    key,
    ids,
    now: clock.now,
    log,
    ramdisk_dir: config.ramdisk_dir,
    provisioning_url,
  })
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

  const servers = [await listen(api as App, config.api)]
  let dnsmasqStopped: Promise<void> = Promise.resolve()
  if (config.provisioning) {
    const { port, unknown_range, address6, ...network } = config.provisioning
    servers.push(await listen(listener as App, `${network.address}:${port}`))
    await fleet.ready
    const hosts = () => addresses.all().map((host) => ({ ...host, name: nameOf(host.mac) }))
    const nameOf = (mac: string) => `node-${mac.replaceAll(':', '')}`
    const dnsmasq = await superviseDnsmasq({
      ...network,
      ...(address6 ? { address6 } : {}),
      range: unknown_range,
      http_base: provisioning_url,
      dir: join(config.data_dir, 'dnsmasq'),
      hosts: hosts(),
      log,
      signal,
      onSeen: ({ kind, mac, address, file }) => {
        if (mac === null) return
        const told =
          kind === 'dhcp-discover' || kind === 'dhcp-ack'
            ? chain.observe(mac, kind, address ?? '')
            : kind === 'tftp-sent'
              ? chain.observe(mac, 'tftp', file ?? '')
              : Promise.resolve()
        told.catch((error: unknown) => log.warn({ err: error, mac }, 'a boot observation could not be recorded'))
      },
    })
    dnsmasqStopped = dnsmasq.stopped
    hostsChanged = () =>
      void dnsmasq.setHosts(hosts()).catch((error: unknown) => log.error({ err: error }, 'DHCP hosts'))
    checks['dhcp'] = () => dnsmasq.state().trouble
  }

  return {
    ready,
    url: urlOf(servers[0] as Server),
    failed: failure.promise,
    async close() {
      const closed = servers.map(closeServer)
      stop.abort()
      await Promise.all([running, watching, dnsmasqStopped, ...closed])
      stopFolding.abort()
      await following
      await store.close()
      vault.close()
    },
  }
}

/** Any Hono application, whatever its own variables are. */
type App = { readonly fetch: (request: Request, env: unknown) => Response | Promise<Response> }

const listen = (app: App, where: string): Promise<Server> => {
  const server = createServer(getRequestListener(app.fetch))
  const fd = /^fd:(\d+)$/.exec(where)?.[1]
  const [, host = '', port = ''] = /^(.+):(\d+)$/.exec(where) ?? []
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    const done = () => resolve(server)
    if (fd !== undefined) server.listen({ fd: Number(fd) }, done)
    else server.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) }, done)
  })
}

const urlOf = (server: Server): string => {
  const address = server.address()
  if (address === null || typeof address === 'string') return ''
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

const closeServer = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
    server.close(() => {
      clearTimeout(timer)
      resolve()
    })
    server.closeIdleConnections()
  })
