/** Discovery: find out what the node is made of, before anyone relies on it. */
import { z } from 'zod'
import { editable, leave, macAddress } from './enrolment.ts'
import { begun, type Fold, failed } from './facts.ts'
import { blobRef, failure, phase, plans } from './phase.ts'

const disk = z.object({
  name: z.string(),
  bytes: z.number().nonnegative(),
  rotational: z.boolean(),
  serial: z.string(),
  model: z.string().default(''),
})

const port = z.object({
  mac: macAddress,
  name: z.string().nullable(),
  driver: z.string().nullable(),
  carrier: z.boolean().nullable(),
})
export type Port = z.infer<typeof port>

/** The minimum that scheduling needs; the full document is in the blob store under `document`. */
export const hardware = z.object({
  arch: z.string(),
  cores: z.int().positive(),
  cpus: z.int().positive(),
  cpu_model: z.string().default(''),
  memory_mib: z.int().positive(),
  disks: z.array(disk),
  nics: z.array(port),
  firmware: z.enum(['bios', 'uefi']),
  vendor: z.string().default(''),
  product: z.string().default(''),
  serial: z.string().default(''),
  document: blobRef.nullable(),
})
export type Hardware = z.infer<typeof hardware>

const change = z.object({ what: z.string(), before: z.string().nullable(), after: z.string().nullable() })
export type Change = z.infer<typeof change>

export const events = {
  DiscoveryRequested: z.object({ plans }),
  DiscoverySucceeded: z.object({ hardware, changes: z.array(change) }),
  DiscoveryFailed: failure,
}

export type Discovered = Hardware & { readonly at: string }

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export const facts = {
  DiscoveryRequested: begun,
  DiscoverySucceeded: ((facts, { hardware, changes }, { at, revision }) => ({
    ...facts,
    hardware: { ...hardware, at },
    ports: [...facts.ports.filter((port) => !hardware.nics.some((nic) => nic.mac === port.mac)), ...hardware.nics],
    hardware_changed: facts.hardware && changes.length === 0 ? facts.hardware_changed : revision,
  })) as Fold<Data<'DiscoverySucceeded'>>,
  DiscoveryFailed: failed,
}

export const states = {
  discovering: phase.createStateConfig({
    tags: 'busy',
    entry: 'discover',
    meta: { doc: 'The ramdisk is booted and reads what the node is made of.' },
    on: {
      DiscoverySucceeded: 'manageable',
      DiscoveryFailed: 'discovery-failed',
      AttemptAborted: 'discovery-failed',
    },
  }),
  'discovery-failed': phase.createStateConfig({
    tags: 'failed',
    meta: { doc: 'The hardware could not be read.' },
    on: {
      ...editable,
      DiscoveryRequested: { target: 'discovering', guard: 'free' },
      VerificationRequested: { target: 'verifying', guard: 'settled' },
      AttemptGivenUp: 'manageable',
      ...leave,
    },
  }),
}

/** What differs between two discoveries, in words; empty when nothing does. */
export const changesBetween = (before: Hardware | null, after: Hardware): Change[] => {
  if (!before) return []
  const facts = (hardware: Hardware) =>
    new Map<string, string>([
      ['arch', hardware.arch],
      ['cores', String(hardware.cores)],
      ['cpus', String(hardware.cpus)],
      ['cpu_model', hardware.cpu_model],
      ['memory_mib', String(hardware.memory_mib)],
      ['firmware', hardware.firmware],
      ['vendor', hardware.vendor],
      ['product', hardware.product],
      ['serial', hardware.serial],
      ...hardware.disks.map(
        ({ name, serial, bytes, rotational }) =>
          [`disk ${serial || name}`, `${bytes} bytes, ${rotational ? 'rotational' : 'solid state'}`] as const,
      ),
      ...hardware.nics.map(({ mac, driver }) => [`nic ${mac}`, driver ?? 'unknown driver'] as const),
    ])
  const [was, is] = [facts(before), facts(after)]
  return [...new Set([...was.keys(), ...is.keys()])]
    .filter((what) => was.get(what) !== is.get(what))
    .map((what) => ({ what, before: was.get(what) ?? null, after: is.get(what) ?? null }))
}
