/** Cleaning: nothing of an earlier tenant stays on the disks; afterwards the node may be handed out. */
import { z } from 'zod'
import { editable, leave } from './enrolment.ts'
import { begun, type Fold, failed } from './facts.ts'
import { failure, jsonObject, phase, plans } from './phase.ts'

/** How thoroughly: partition tables and signatures, or every byte. */
export const ERASE = ['metadata', 'full'] as const

export const events = {
  /** Make the node available: burn in first if `then` says so, then clean. */
  ProvisionRequested: z.object({
    then: z.enum(['burning-in', 'cleaning']),
    erase: z.enum(ERASE),
    profile: jsonObject.default({}),
    goal: z.literal('available').default('available'),
    plans,
  }),
  CleaningRequested: z.object({
    erase: z.enum(ERASE),
    goal: z.enum(['manageable', 'available']),
    plans,
  }),
  CleaningSucceeded: z.object({
    then: z.enum(['manageable', 'available']),
    /** What was done to which disk, by serial number. */
    disks: z.array(jsonObject).default([]),
  }),
  CleaningFailed: failure,
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export const facts = {
  ProvisionRequested: begun,
  CleaningRequested: begun,
  CleaningSucceeded: ((facts) => ({ ...facts, instance: null })) as Fold<Data<'CleaningSucceeded'>>,
  CleaningFailed: failed,
}

export const states = {
  cleaning: phase.createStateConfig({
    tags: 'busy',
    entry: 'clean',
    meta: { doc: 'The disks are being wiped.' },
    on: {
      CleaningSucceeded: [{ target: 'available', guard: 'thenAvailable' }, { target: 'manageable' }],
      CleaningFailed: 'clean-failed',
      AttemptAborted: 'clean-failed',
    },
  }),
  'clean-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'The disks may still hold data of an earlier tenant.' },
    on: {
      ...editable,
      CleaningRequested: { target: 'cleaning', guard: 'free' },
      ProvisionRequested: [
        { target: 'burning-in', guard: 'freeThenBurnIn' },
        { target: 'cleaning', guard: 'freeThenClean' },
      ],
      VerificationRequested: { target: 'verifying', guard: 'settled' },
      DiscoveryRequested: { target: 'discovering', guard: 'free' },
      AttemptGivenUp: 'manageable',
      ...leave,
    },
  }),
  available: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Clean, burned in and free to be deployed.' },
    on: {
      ...editable,
      DeploymentRequested: { target: 'deploying', guard: 'free' },
      CleaningRequested: { target: 'cleaning', guard: 'free' },
      DiscoveryRequested: { target: 'discovering', guard: 'free' },
      BurnInRequested: { target: 'burning-in', guard: 'free' },
      ...leave,
    },
  }),
}
