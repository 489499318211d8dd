/** Burn-in: work the hardware hard before anyone relies on it, and keep the evidence. */
import { z } from 'zod'
import { editable, leave } from './enrolment.ts'
import { begun, type Fold, failed } from './facts.ts'
import { failure, jsonObject, phase, plans } from './phase.ts'

export const events = {
  BurnInRequested: z.object({ profile: jsonObject.default({}), plans }),
  /** `then` says where a burn-in that was part of a provision leads on to. */
  BurnInSucceeded: z.object({ then: z.enum(['manageable', 'cleaning']) }),
  BurnInFailed: failure,
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export const facts = {
  BurnInRequested: begun,
  BurnInSucceeded: ((facts, _, { at, revision }) => ({ ...facts, burned_in: { at, revision } })) as Fold<
    Data<'BurnInSucceeded'>
  >,
  BurnInFailed: failed,
}

export const states = {
  'burning-in': phase.createStateConfig({
    tags: 'busy',
    entry: 'burn-in',
    meta: { doc: 'Processors, memory, disks and network are put under load.' },
    on: {
      BurnInSucceeded: [{ target: 'cleaning', guard: 'thenClean' }, { target: 'manageable' }],
      BurnInFailed: 'burn-in-failed',
      AttemptAborted: 'burn-in-failed',
    },
  }),
  'burn-in-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'A step found a fault, or could not be run. The report says which.' },
    on: {
      ...editable,
      BurnInRequested: { target: 'burning-in', guard: 'free' },
      ProvisionRequested: [
        { target: 'burning-in', guard: 'freeThenBurnIn' },
        { target: 'cleaning', guard: 'freeThenClean' },
      ],
      DiscoveryRequested: { target: 'discovering', guard: 'free' },
      VerificationRequested: { target: 'verifying', guard: 'settled' },
      AttemptGivenUp: 'manageable',
      ...leave,
    },
  }),
}

/** Whether the hardware as it is now has passed a burn-in: none was done, or it changed since. */
export const needsBurnIn = (facts: { burned_in: { revision: number } | null; hardware_changed: number }) =>
  facts.burned_in === null || facts.burned_in.revision < facts.hardware_changed
