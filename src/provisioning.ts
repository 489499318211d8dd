/** The provisioning network: the listener that nodes boot from, and the dnsmasq that leads them there. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { stateOf } from '../machines/node/machine.ts'
import { openAddresses } from './boot/addresses.ts'
import { type ChainTools, openChain } from './boot/chain.ts'
import { superviseDnsmasq } from './boot/dnsmasq.ts'
import type { Seen } from './boot/dnsmasq-log.ts'
import { type ListenerTools, openListener } from './boot/listener.ts'
import type { Config } from './config.ts'
import type { Check } from './http/service.ts'
import { serve } from './serve.ts'

type Tools = Omit<
  ChainTools & ListenerTools,
  'chain' | 'now' | 'consoles' | 'has_extra' | 'ramdisk_dir' | 'provisioning_url'
>

/** To be opened before the log is followed: addresses are given in the order of the log. */
export const openProvisioning = (config: Config, tools: Tools) => {
  const { fleet, clock, log } = tools
  const { provisioning_url, ramdisk_dir, consoles } = config
  const has_extra = existsSync(join(ramdisk_dir, 'extra.img'))
  const chain = openChain({ ...tools, provisioning_url, consoles, has_extra })
  const listener = openListener({ ...tools, chain, now: clock.now, ramdisk_dir, provisioning_url })

  const addresses = openAddresses(config.node_range)
  let hostsChanged = () => {}
  fleet.follow((_, __, after, before) => {
    if (addresses.update(before.facts, after.facts, stateOf(after) === 'forgotten')) hostsChanged()
  })
  const hosts = () =>
    addresses.all().map(({ mac, address }) => ({ mac, address, name: `node-${mac.replaceAll(':', '')}` }))

  const onSeen = ({ kind, mac, address, file }: Seen) => {
    if (mac === null) return
    const milestone = kind === 'tftp-sent' ? 'tftp' : kind
    if (milestone !== 'dhcp-discover' && milestone !== 'dhcp-ack' && milestone !== 'tftp') return
    chain
      .observe(mac, milestone, file ?? address ?? '')
      .catch((error: unknown) => log.warn({ err: error, mac }, 'a boot observation could not be recorded'))
  }

  return {
    /** Starts the listener and dnsmasq once history is read; null when no provisioning network is configured. */
    async start(signal: AbortSignal) {
      if (!config.provisioning) return null
      const { port, unknown_range, address6, ...network } = config.provisioning
      await fleet.ready
      const served = await serve(listener, `${network.address}:${port}`)
      const dnsmasq = await superviseDnsmasq({
        ...network,
        ...(address6 ? { address6 } : {}),
        range: unknown_range,
        http_base: provisioning_url,
        dir: join(config.data_dir, 'dnsmasq'),
        hosts: hosts(),
        log,
        signal,
        onSeen,
      })
      hostsChanged = () =>
        void dnsmasq.setHosts(hosts()).catch((error: unknown) => log.error({ err: error }, 'DHCP hosts'))
      hostsChanged()
      const checks: Record<string, Check> = {
        dhcp: () => dnsmasq.state().trouble,
        ramdisk: () =>
          existsSync(join(ramdisk_dir, 'ramdisk.img'))
            ? null
            : `there is no ramdisk in ${ramdisk_dir}: run deploy/ramdisk/build.sh, or set BLOOMERY_RAMDISK`,
      }
      return {
        checks,
        async close() {
          await Promise.all([dnsmasq.stopped, served.close()])
        },
      }
    },
  }
}
