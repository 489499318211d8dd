/** Power: switched on request, in a region beside the lifecycle; and what the controller says of it. */
import { z } from 'zod'
import { begun, type Fold, failed } from './facts.ts'
import { failure, phase, plans } from './phase.ts'

export const POWER_ACTIONS = ['on', 'off', 'soft-off', 'reset', 'cycle'] as const

export const events = {
  PowerRequested: z.object({ action: z.enum(POWER_ACTIONS), plans }),
  PowerSucceeded: z.object({}),
  PowerFailed: failure,
  /** The chassis power is not what it was when somebody last looked. */
  PowerObserved: z.object({ power: z.enum(['on', 'off']), before: z.enum(['on', 'off']).nullable() }),
  /** The controller stopped answering, or stopped accepting its credentials. */
  BmcLost: z.object({ code: z.string(), reason: z.string() }),
  BmcRegained: z.object({}),
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export const facts = {
  PowerRequested: begun,
  PowerFailed: failed,
  PowerObserved: ((facts, { power }) => ({ ...facts, power })) as Fold<Data<'PowerObserved'>>,
  BmcLost: ((facts, { reason }, { at }) => ({ ...facts, bmc_lost: { reason, since: at } })) as Fold<Data<'BmcLost'>>,
  BmcRegained: ((facts) => ({ ...facts, bmc_lost: null })) as Fold<Data<'BmcRegained'>>,
}

export const states = {
  settled: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Nobody is switching the power.' },
    on: { PowerRequested: { target: 'switching', guard: 'idle' } },
  }),
  switching: phase.createStateConfig({
    tags: 'busy',
    entry: 'switch-power',
    meta: { doc: 'The power is being switched as asked.' },
    on: { PowerSucceeded: 'settled', PowerFailed: 'settled', AttemptAborted: 'settled' },
  }),
}
