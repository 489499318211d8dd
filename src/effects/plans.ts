/** Pieces that drivers make their plans of. How long a step may take is data, here in one place. */
import type { Profile } from '../../machines/node/commands.ts'
import type { JsonObject, Step } from '../../machines/node/phase.ts'
import type { PlanAsk } from '../drivers/driver.ts'

/** How long each kind of step may take, unless a driver knows better. */
export const DEADLINES_S = {
  bmc: 120,
  power: 300,
  soft_off: 600,
  /** POST of a large server takes many minutes, and Cloudflare has seen hours. */
  ramdisk_boot: 1800,
  inspect: 300,
  image: 3600,
  write: 7200,
  config_drive: 300,
  tenant_boot: 1800,
  wipe: 1800,
  /** Overwriting a large rotational disk takes days. */
  erase: 4 * 86_400,
  /** A burn-in step is given its own duration and this much more. */
  burn_in_slack: 1800,
} as const

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
export const burnInSteps = (profile: Profile, facts: PlanAsk['facts']): Step[] => {
  const max_celsius = profile.max_celsius ?? DEFAULT_PROFILE.max_celsius
  const part = <K extends 'cpu' | 'memory' | 'disk' | 'network'>(name: K) =>
    profile[name] === null ? null : ({ ...DEFAULT_PROFILE[name], ...profile[name] } as JsonObject)
  const timed = (name: 'cpu' | 'memory' | 'disk'): Step[] => {
    const args = part(name)
    if (!args) return []
    const disks = name === 'disk' ? Math.max(1, facts.hardware?.disks.length ?? 1) : 1
    return [
      step(`burn-in.${name}`, Number(args['seconds']) * disks + DEADLINES_S.burn_in_slack, { ...args, max_celsius }),
    ]
  }
  const network = part('network')
  return [
    ...timed('cpu'),
    ...timed('memory'),
    ...timed('disk'),
    ...(network ? [step('burn-in.network', DEADLINES_S.burn_in_slack, network)] : []),
  ]
}

export const powerSteps = (action: unknown): Step[] => {
  switch (action) {
    case 'on':
    case 'off':
      return [step(`power.${action}`, DEADLINES_S.power)]
    case 'soft-off':
      return [step('power.soft-off', DEADLINES_S.soft_off)]
    case 'reset':
      return [step('power.reset', DEADLINES_S.power)]
    default:
      // A cycle is "be off", then "be on": either may be repeated, and neither toggles.
      return [step('power.off', DEADLINES_S.power), step('power.on', DEADLINES_S.power)]
  }
}

export const profileOf = (ask: PlanAsk): Profile => (ask.body['profile'] ?? {}) as Profile
export const cleaningStep = (ask: PlanAsk): Step =>
  ask.body['erase'] === 'full' ? step('clean.erase', DEADLINES_S.erase) : step('clean.wipe', DEADLINES_S.wipe)
