/** Enrolment: a node becomes known with the address of its BMC, is verified, renamed, updated, and one day forgotten. */
import { z } from 'zod'
import { begun, type Fold, failed } from './facts.ts'
import { failure, jsonObject, phase, plans } from './phase.ts'

const MAX_METADATA_ENTRIES = 64
const MAX_PORTS = 64

export const nodeName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/, 'lower-case letters, digits, dots and hyphens, 1 to 63 characters')
  .refine((name) => !/^[0-9a-f]{8}-[0-9a-f]{4}-/.test(name), 'must not look like a node id')
export const macAddress = z
  .string()
  .transform((mac) => mac.toLowerCase().replaceAll('-', ':'))
  .pipe(z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, 'six hexadecimal bytes, such as 52:54:00:12:34:56'))
/** MACs of a node, each named once. */
export const ports = z
  .array(macAddress)
  .max(MAX_PORTS)
  .transform((macs) => [...new Set(macs)])
export const metadata = z
  .record(z.string().min(1).max(64), z.string().max(1024))
  .refine((entries) => Object.keys(entries).length <= MAX_METADATA_ENTRIES, `at most ${MAX_METADATA_ENTRIES} entries`)

export const credential = z.object({ name: z.string(), version: z.int() }).nullable()

export const events = {
  NodeEnrolled: z.object({
    name: nodeName,
    driver: z.string(),
    bmc: jsonObject,
    credential,
    deploy_interface: z.string().nullable(),
    metadata,
    ports,
  }),
  NodeRenamed: z.object({ name: nodeName }),
  NodeUpdated: z.object({
    bmc: jsonObject.optional(),
    credential: credential.optional(),
    deploy_interface: z.string().nullable().optional(),
    metadata: metadata.optional(),
    ports: ports.optional(),
  }),
  NodeForgotten: z.object({ reason: z.string().default('') }),
  VerificationRequested: z.object({ plans }),
  VerificationSucceeded: z.object({ bmc: jsonObject }),
  VerificationFailed: failure,
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

/** Ports that an operator named: what discovery learned of a MAC stays with it. */
const named = (macs: readonly string[], before: Parameters<Fold<unknown>>[0]['ports']) =>
  macs.map((mac) => before.find((port) => port.mac === mac) ?? { mac, name: null, driver: null, carrier: null })

export const facts = {
  NodeEnrolled: ((facts, { ports, ...data }, { at }) => ({
    ...facts,
    ...data,
    ports: named(ports, []),
    enrolled_at: at,
  })) as Fold<Data<'NodeEnrolled'>>,
  NodeRenamed: ((facts, { name }) => ({ ...facts, name })) as Fold<Data<'NodeRenamed'>>,
  NodeUpdated: ((facts, { bmc, credential, deploy_interface, metadata, ports }) => ({
    ...facts,
    bmc: bmc ?? facts.bmc,
    credential: credential === undefined ? facts.credential : credential,
    deploy_interface: deploy_interface === undefined ? facts.deploy_interface : deploy_interface,
    metadata: metadata ?? facts.metadata,
    ports: ports ? named(ports, facts.ports) : facts.ports,
  })) as Fold<Data<'NodeUpdated'>>,
  VerificationRequested: begun,
  VerificationSucceeded: ((facts, { bmc }) => ({ ...facts, bmc_info: bmc, bmc_lost: null })) as Fold<
    Data<'VerificationSucceeded'>
  >,
  VerificationFailed: failed,
}

/** What may be changed of a node whenever nothing is at work on it. */
export const editable = {
  NodeUpdated: { actions: 'record', guard: 'settled' },
  NodeRenamed: { actions: 'record', guard: 'settled' },
} as const
/** Where a node may be given away: never while a tenant is or may be on it. */
export const leave = { NodeForgotten: { target: 'forgotten', guard: 'settled' } } as const
const verify = { VerificationRequested: { target: 'verifying', guard: 'settled' } } as const

export const states = {
  unknown: phase.createStateConfig({
    meta: { doc: 'Nothing is recorded about this node yet.' },
    on: { NodeEnrolled: 'enrolled' },
  }),
  enrolled: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Known by name and BMC address; nobody has spoken to its BMC yet.' },
    on: { ...editable, ...verify, ...leave },
  }),
  verifying: phase.createStateConfig({
    tags: 'busy',
    entry: 'verify',
    meta: { doc: 'Asking the BMC who it is, with the credentials given.' },
    on: {
      VerificationSucceeded: 'manageable',
      VerificationFailed: 'verify-failed',
      AttemptAborted: 'verify-failed',
    },
  }),
  'verify-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'The BMC did not answer, or did not accept the credentials.' },
    on: { ...editable, ...verify, AttemptGivenUp: 'enrolled', ...leave },
  }),
  manageable: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Its BMC obeys; it can be discovered, burned in and provided.' },
    on: {
      ...editable,
      ...verify,
      DiscoveryRequested: { target: 'discovering', guard: 'free' },
      BurnInRequested: { target: 'burning-in', guard: 'free' },
      ProvisionRequested: [
        { target: 'burning-in', guard: 'freeThenBurnIn' },
        { target: 'cleaning', guard: 'freeThenClean' },
      ],
      CleaningRequested: { target: 'cleaning', guard: 'free' },
      ...leave,
    },
  }),
  forgotten: phase.createStateConfig({
    meta: { doc: 'No longer ours. Its name and MACs are free; its history stays.' },
  }),
}
