/** Pieces that drivers make their plans of. How long a step may take is data, here in one place. */
import type { Profile } from '../../machines/node/commands.ts'
import type { EffectName, JsonObject, Step } from '../../machines/node/phase.ts'
import { type PlanAsk, PlanRefused } from '../drivers/driver.ts'
import type { Deadlines } from './deadlines.ts'

export const step = (name: string, deadline_s: number, args: JsonObject = {}): Step => {
  const [face = '', word = ''] = name.split('.')
  return { interface: face, step: word, args, deadline_s }
}

/** Two weeks is what acceptance tests take; a day finds most of what will be found. */
export const DEFAULT_PROFILE = {
  cpu: { seconds: 6 * 3600 },
  memory: { seconds: 12 * 3600, percent: 80 },
  disk: { seconds: 6 * 3600, mode: 'verify-write' },
  network: { mebibytes: 10_240, min_mbit_per_s: 0 },
  max_celsius: 95,
} as const

/** The burn-in steps of a profile; a part that is null is left out. */
export const burnInSteps = ({ body, facts, deadlines }: PlanAsk): Step[] => {
  const profile = (body['profile'] ?? {}) as Profile
  const max_celsius = profile.max_celsius ?? DEFAULT_PROFILE.max_celsius
  const part = <K extends 'cpu' | 'memory' | 'disk' | 'network'>(name: K) =>
    profile[name] === null ? null : ({ ...DEFAULT_PROFILE[name], ...profile[name] } as JsonObject)
  const timed = (name: 'cpu' | 'memory' | 'disk'): Step[] => {
    const args = part(name)
    if (!args) return []
    const disks = name === 'disk' ? Math.max(1, facts.hardware?.disks.length ?? 1) : 1
    return [
      step(`burn-in.${name}`, Number(args['seconds']) * disks + deadlines.burn_in_slack, { ...args, max_celsius }),
    ]
  }
  const network = part('network')
  return [
    ...timed('cpu'),
    ...timed('memory'),
    ...timed('disk'),
    ...(network ? [step('burn-in.network', deadlines.burn_in_slack, network)] : []),
  ]
}

export const powerSteps = ({ body, deadlines }: PlanAsk): Step[] => {
  const { action } = body
  switch (action) {
    case 'on':
    case 'off':
      return [step(`power.${action}`, deadlines.power)]
    case 'soft-off':
      return [step('power.soft-off', deadlines.soft_off)]
    case 'reset':
      return [step('power.reset', deadlines.power)]
    default:
      // A cycle is "be off", then "be on": either may be repeated, and neither toggles.
      return [off(deadlines), on(deadlines)]
  }
}

export const cleaningStep = (ask: PlanAsk): Step =>
  ask.body['erase'] === 'full' ? step('clean.erase', ask.deadlines.erase) : step('clean.wipe', ask.deadlines.wipe)

const off = ({ power }: Deadlines) => step('power.off', power)
const on = ({ power }: Deadlines) => step('power.on', power)
const next = (device: string, { bmc }: Deadlines) => step('management.boot-device', bmc, { device })

/**
 * Brings the ramdisk up: off, boot the network once, on, wait for the agent. Each may be repeated without harm.
 * @throws {PlanRefused} when nobody knows which MAC the node will boot from
 */
const ramdiskUp = (ask: PlanAsk, extra: JsonObject = {}): Step[] => {
  if (ask.agent_is_up) return []
  if (ask.facts.ports.length === 0) {
    throw new PlanRefused(
      'ports',
      'the node has no port yet: add the MAC that it boots from, so that it is known when it asks',
    )
  }
  const { deadlines } = ask
  return [off(deadlines), next('pxe', deadlines), on(deadlines), step('boot.agent', deadlines.ramdisk_boot, extra)]
}
const ramdiskDown = (ask: PlanAsk): Step[] => (ask.keep_agent ? [] : [off(ask.deadlines)])

/** The plans of a node that boots a ramdisk from the network and has a BMC that switches it. */
export const networkBootPlans: Record<EffectName, (ask: PlanAsk) => Step[]> = {
  verify: ({ deadlines }) => [step('management.info', deadlines.bmc), step('power.read', deadlines.bmc)],
  discover: (ask) => [...ramdiskUp(ask), step('inspect.collect', ask.deadlines.inspect), ...ramdiskDown(ask)],
  'burn-in': (ask) => [...ramdiskUp(ask, { burn_in: true }), ...burnInSteps(ask), ...ramdiskDown(ask)],
  clean: (ask) => [
    ...ramdiskUp(ask, ask.body['erase'] === 'full' ? { burn_in: true } : {}),
    cleaningStep(ask),
    ...ramdiskDown(ask),
  ],
  deploy: (ask) => {
    const { image, deploy_interface, config_drive, ready } = ask.body as Body
    const { deadlines } = ask
    const isDirect = deploy_interface === 'direct'
    if (!isDirect && image?.compression && image.compression !== 'none') {
      throw new PlanRefused('image.compression', 'only the deploy interface direct unpacks an image: none for iscsi')
    }
    if (isDirect && image?.format !== 'raw') {
      throw new PlanRefused('image.format', 'the deploy interface direct writes raw images only; iscsi converts others')
    }
    const isForeign = isDirect && image?.url?.startsWith('http:')
    return [
      // A ramdisk that cannot come by an image need not be booted.
      ...(isForeign ? [] : [step('deploy.image', deadlines.image)]),
      ...ramdiskUp(ask, image?.compression === 'zstd' ? { burn_in: true } : {}),
      step(isDirect ? 'deploy.write-direct' : 'deploy.write-iscsi', deadlines.write),
      ...(config_drive === null ? [] : [step('deploy.config-drive', deadlines.config_drive)]),
      off(deadlines),
      next('disk', deadlines),
      on(deadlines),
      step('boot.tenant', deadlines.tenant_boot, ready ?? { rule: 'phone-home' }),
    ]
  },
  undeploy: ({ deadlines }) => [off(deadlines), next('none', deadlines)],
  'switch-power': powerSteps,
}

type Body = {
  readonly image?: { readonly url?: string; readonly format?: string; readonly compression?: string }
  readonly deploy_interface?: string
  readonly config_drive?: unknown
  readonly ready?: JsonObject
}
