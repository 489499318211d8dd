/** Deployment: put an image on the disk, hand the node to its tenant, and one day take it back. */
import { z } from 'zod'
import { ERASE } from './cleaning.ts'
import { editable } from './enrolment.ts'
import { begun, type Fold, failed } from './facts.ts'
import { failure, jsonObject, phase, plans } from './phase.ts'

export const image = z.object({
  url: z.string(),
  format: z.string(),
  compression: z.string().default('none'),
  checksum: z.string(),
})

/** When a deployed node counts as booted: its image phones home, or it stays on for so long without asking for PXE. */
export const ready = z.discriminatedUnion('rule', [
  z.object({ rule: z.literal('phone-home') }),
  z.object({ rule: z.literal('stays-on'), settle_s: z.number().positive().max(3600) }),
])

export const events = {
  DeploymentRequested: z.object({
    /** Identity of what will run: the `uuid` of the config drive, the `instance_id` of a phone-home. */
    instance_id: z.uuid(),
    image,
    deploy_interface: z.string(),
    root_device: jsonObject.default({}),
    /** Config drive contents that are no secret; the rest is in the vault under `config_drive_secret`. */
    config_drive: jsonObject.nullable().default(null),
    config_drive_secret: z.object({ name: z.string(), version: z.int() }).nullable().default(null),
    ready,
    plans,
  }),
  DeploymentSucceeded: z.object({
    root_disk: jsonObject.nullable().default(null),
    /** What was seen that made the node count as booted. */
    observed: z.string(),
  }),
  DeploymentFailed: failure,
  UndeploymentRequested: z.object({ erase: z.enum(ERASE), goal: z.literal('available').default('available'), plans }),
  UndeploymentSucceeded: z.object({}),
  UndeploymentFailed: failure,
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export type Deployed = {
  readonly id: string
  readonly image: z.infer<typeof image>
  readonly deploy_interface: string
  readonly requested_at: string
  readonly active_at: string | null
  readonly root_disk: z.infer<typeof jsonObject> | null
}

export const facts = {
  DeploymentRequested: ((facts, data, { at }) => ({
    ...facts,
    failure: null,
    instance: {
      id: data.instance_id,
      image: data.image,
      deploy_interface: data.deploy_interface,
      requested_at: at,
      active_at: null,
      root_disk: null,
    },
  })) as Fold<Data<'DeploymentRequested'>>,
  DeploymentSucceeded: ((facts, { root_disk }, { at }) => ({
    ...facts,
    instance: facts.instance && { ...facts.instance, active_at: at, root_disk },
  })) as Fold<Data<'DeploymentSucceeded'>>,
  DeploymentFailed: failed,
  UndeploymentRequested: begun,
  UndeploymentSucceeded: ((facts) => ({ ...facts, instance: null })) as Fold<Data<'UndeploymentSucceeded'>>,
  UndeploymentFailed: failed,
}

const undeploy = { UndeploymentRequested: { target: 'undeploying', guard: 'free' } } as const

export const states = {
  deploying: phase.createStateConfig({
    tags: 'busy',
    entry: 'deploy',
    meta: { doc: 'The image is being written and booted.' },
    on: {
      DeploymentSucceeded: 'active',
      DeploymentFailed: 'deploy-failed',
      AttemptAborted: 'deploy-failed',
    },
  }),
  'deploy-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'No tenant runs on it; the disk may hold part of an image.' },
    on: {
      ...editable,
      ...undeploy,
      DeploymentRequested: { target: 'deploying', guard: 'free' },
      CleaningRequested: { target: 'cleaning', guard: 'free' },
    },
  }),
  active: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Running its tenant.' },
    on: { ...editable, ...undeploy },
  }),
  undeploying: phase.createStateConfig({
    tags: 'busy',
    entry: 'undeploy',
    meta: { doc: 'The tenant is being taken off; cleaning follows.' },
    on: {
      UndeploymentSucceeded: 'cleaning',
      UndeploymentFailed: 'undeploy-failed',
      AttemptAborted: 'undeploy-failed',
    },
  }),
  'undeploy-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'The tenant may still be running.' },
    on: { ...editable, ...undeploy },
  }),
}
