/** Every command that a node takes, by the word that the API and the command line use for it. */
import { z } from 'zod'
import { needsBurnIn } from './burn-in.ts'
import { ERASE } from './cleaning.ts'
import { type Command, command } from './command.ts'
import { ready } from './deployment.ts'
import { credential, metadata, nodeName, ports } from './enrolment.ts'
import { accepts, type EventData, type EventType, type Node, type NodeEvent, stateOf } from './machine.ts'
import { type JsonObject, jsonObject, type Plans } from './phase.ts'
import { POWER_ACTIONS } from './power.ts'
import { currentStep } from './work.ts'

const nothing = z.strictObject({})
const reason = z.string().min(1).max(1024)
const erase = z.enum(ERASE).default('metadata').describe('metadata: tables and signatures; full: every byte')

/** How hard to burn in; what is left out is the service's default. */
export const profile = z.strictObject({
  cpu: z.strictObject({ seconds: z.number().positive() }).nullable().optional(),
  memory: z
    .strictObject({ seconds: z.number().positive(), percent: z.number().min(1).max(95).optional() })
    .nullable()
    .optional(),
  disk: z
    .strictObject({
      seconds: z.number().positive(),
      mebibytes: z.int().positive().optional(),
      mode: z.enum(['read', 'verify-write']).optional(),
    })
    .nullable()
    .optional(),
  network: z
    .strictObject({ mebibytes: z.int().positive(), min_mbit_per_s: z.number().nonnegative().optional() })
    .nullable()
    .optional(),
  max_celsius: z.number().positive().optional(),
})
export type Profile = z.infer<typeof profile>

const deployBody = z.strictObject({
  image: z.strictObject({
    url: z.string().min(1).describe('http, https or file'),
    format: z.enum(['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc']),
    compression: z.enum(['none', 'gzip', 'zstd']).default('none'),
    checksum: z
      .string()
      .regex(
        /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/,
        'sha256: or sha512: followed by the digest in lower-case hex',
      ),
  }),
  deploy_interface: z.string().optional(),
  root_device: z
    .strictObject({
      name: z.string().optional(),
      serial: z.string().optional(),
      rotational: z.boolean().optional(),
      min_size_gib: z.number().positive().optional(),
      size_gib: z.number().positive().optional(),
    })
    .default({}),
  config_drive: z
    .strictObject({
      meta_data: jsonObject.optional(),
      user_data: z.string().optional(),
      network_data: jsonObject.optional(),
      vendor_data: jsonObject.optional(),
    })
    .nullable()
    .default({})
    .describe('null: none at all'),
  /** Put in by the shell when it has moved the secret parts of the config drive into the vault. */
  config_drive_secret: z.object({ name: z.string(), version: z.int() }).optional(),
  ready: ready.default({ rule: 'phone-home' }),
})

export const commands = {
  verify: command({
    doc: 'Ask the BMC who it is, with the credentials given; a node that passes is manageable.',
    body: nothing,
    event: 'VerificationRequested',
    effects: () => ['verify'],
    propose: (_, { plans }) => [{ type: 'VerificationRequested', data: { plans } }],
  }),
  discover: command({
    doc: 'Boot the ramdisk and read what the node is made of.',
    body: nothing,
    event: 'DiscoveryRequested',
    effects: () => ['discover'],
    propose: (_, { plans }) => [{ type: 'DiscoveryRequested', data: { plans } }],
  }),
  'burn-in': command({
    doc: 'Work the hardware hard and keep the evidence.',
    body: z.strictObject({ profile: profile.default({}) }),
    event: 'BurnInRequested',
    effects: () => ['burn-in'],
    propose: ({ profile }, { plans }) => [{ type: 'BurnInRequested', data: { profile: asJson(profile), plans } }],
  }),
  provide: command({
    doc: 'Make the node available: burn it in if the hardware was not, since it last changed; clean it.',
    body: z.strictObject({
      burn_in: z.enum(['if-needed', 'always', 'never']).default('if-needed'),
      profile: profile.default({}),
      erase,
    }),
    event: 'ProvisionRequested',
    effects: ({ burn_in }, { facts }) =>
      burn_in === 'always' || (burn_in === 'if-needed' && needsBurnIn(facts)) ? ['burn-in', 'clean'] : ['clean'],
    propose: ({ erase, profile }, { plans }) => [
      {
        type: 'ProvisionRequested',
        data: {
          then: plans['burn-in'] ? 'burning-in' : 'cleaning',
          erase,
          profile: asJson(profile),
          goal: 'available',
          plans,
        },
      },
    ],
  }),
  deploy: command({
    doc: 'Write an image to the disk, boot it, and hand the node to its tenant.',
    body: deployBody,
    event: 'DeploymentRequested',
    effects: () => ['deploy'],
    propose: ({ config_drive, config_drive_secret, deploy_interface, ...body }, { node, plans, id }) => {
      const data: EventData<'DeploymentRequested'> = {
        ...body,
        root_device: asJson(body.root_device),
        instance_id: id(),
        deploy_interface: deploy_interface ?? node.facts.deploy_interface ?? '',
        config_drive: config_drive && asJson(config_drive),
        config_drive_secret: config_drive_secret ?? null,
        plans,
      }
      return [{ type: 'DeploymentRequested', data }]
    },
  }),
  undeploy: command({
    doc: 'Take the tenant off, clean the disks, and make the node available again.',
    body: z.strictObject({ erase }),
    event: 'UndeploymentRequested',
    effects: () => ['undeploy', 'clean'],
    propose: ({ erase }, { plans }) => [{ type: 'UndeploymentRequested', data: { erase, goal: 'available', plans } }],
  }),
  clean: command({
    doc: 'Wipe the disks. A node that was available, or had a tenant, is available afterwards; another is manageable.',
    body: z.strictObject({ erase }),
    event: 'CleaningRequested',
    effects: () => ['clean'],
    propose: ({ erase }, { node, plans }) => [
      { type: 'CleaningRequested', data: { erase, goal: cleaningGoal(node), plans } },
    ],
  }),
  rename: command({
    doc: 'Give the node another name.',
    body: z.strictObject({ name: nodeName }),
    event: 'NodeRenamed',
    effects: () => [],
    propose: ({ name }) => [{ type: 'NodeRenamed', data: { name } }],
  }),
  update: command({
    doc: 'Change metadata (replaced as a whole), BMC settings and credentials, ports, or the deploy interface.',
    body: z
      .strictObject({
        bmc: jsonObject.optional(),
        metadata: metadata.optional(),
        ports: ports.optional(),
        deploy_interface: z.string().nullable().optional(),
        /** Put in by the shell when it has moved a password from `bmc` into the vault. */
        credential: credential.optional(),
      })
      .refine((body) => Object.keys(body).length > 0, 'name at least one thing to change'),
    event: 'NodeUpdated',
    effects: () => [],
    propose: (body) => [{ type: 'NodeUpdated', data: body }],
  }),
  power: command({
    doc: 'Switch the power: on, off, soft-off (ask the operating system), reset, cycle.',
    body: z.strictObject({ action: z.enum(POWER_ACTIONS) }),
    event: 'PowerRequested',
    effects: () => ['switch-power'],
    propose: ({ action }, { plans }) => [{ type: 'PowerRequested', data: { action, plans } }],
  }),
  abort: command({
    doc: 'End what the node is being put through; in a failed state: give it up.',
    body: z.strictObject({ reason: reason.default('aborted by an operator') }),
    event: 'AttemptAborted',
    effects: () => [],
    propose: ({ reason }, { node }) => [
      node.work === null && accepts(node, 'AttemptGivenUp')
        ? { type: 'AttemptGivenUp', data: { reason } }
        : { type: 'AttemptAborted', data: { reason, step: currentStep(node.work) } },
    ],
  }),
  retry: command({
    doc: 'Ask again for what failed, as it was asked.',
    body: nothing,
    event: 'VerificationRequested',
    effects: (_, node) => (node.asked ? (Object.keys(again(node)?.plans ?? {}) as never) : []),
    propose: (_, { node, plans }) => {
      const what = again(node)
      return what ? [what.event(plans)] : []
    },
  }),
  'set-maintenance': command({
    doc: 'Hands off: what runs is finished (or aborted), nothing new starts, power commands still work.',
    body: z.strictObject({ reason, running: z.enum(['finish', 'abort']).default('finish') }),
    event: 'MaintenanceSet',
    effects: () => [],
    propose: ({ reason, running }, { node }) => [
      ...(running === 'abort' && node.work
        ? [
            {
              type: 'AttemptAborted',
              data: { reason: `maintenance: ${reason}`, step: currentStep(node.work) },
            } as const,
          ]
        : []),
      { type: 'MaintenanceSet', data: { reason } },
    ],
  }),
  'clear-maintenance': command({
    doc: 'Back in service.',
    body: nothing,
    event: 'MaintenanceCleared',
    effects: () => [],
    propose: () => [{ type: 'MaintenanceCleared', data: {} }],
  }),
  forget: command({
    doc: 'Let the node go: its name and MACs become free, its secrets are destroyed, its history stays.',
    body: z.strictObject({ reason: z.string().max(1024).default('') }),
    event: 'NodeForgotten',
    effects: () => [],
    propose: ({ reason }) => [{ type: 'NodeForgotten', data: { reason } }],
  }),
} as const satisfies Record<string, Command>

export type CommandName = keyof typeof commands

/** What a schema let through and has no undefined in it. */
const asJson = (value: object) => JSON.parse(JSON.stringify(value)) as JsonObject

const cleaningGoal = (node: Node): 'manageable' | 'available' =>
  stateOf(node) === 'manageable' || (stateOf(node) === 'clean-failed' && node.asked?.data['goal'] !== 'available')
    ? 'manageable'
    : 'available'

/** What a failed node was asked, to be asked again: the phases that need new plans, and the event. */
const again = (node: Node): { plans: Plans; event: (plans: Plans) => NodeEvent } | null => {
  const { asked } = node
  if (!asked || !stateOf(node).endsWith('-failed')) return null
  const erase = (asked.data['erase'] as (typeof ERASE)[number] | undefined) ?? 'metadata'
  const plans = asked.data.plans
  // The tenant was already taken off when cleaning failed: only the cleaning is asked for again.
  if (stateOf(node) === 'clean-failed') {
    return {
      plans: { clean: plans.clean ?? [] },
      event: (fresh) => ({ type: 'CleaningRequested', data: { erase, goal: cleaningGoal(node), plans: fresh } }),
    }
  }
  return {
    plans,
    event: (fresh) => ({ type: asked.type as EventType, data: { ...asked.data, plans: fresh } }) as NodeEvent,
  }
}

/** What a plan for the command may depend on: its body, or for a retry what was asked before. */
export const planBody = (node: Node, name: CommandName, body: object): Readonly<Record<string, unknown>> =>
  name === 'retry' ? (node.asked?.data ?? {}) : (body as Readonly<Record<string, unknown>>)

/** Whether the node has room for the command now; bodies that are wrong are another matter. */
export const isAllowed = (node: Node, name: CommandName): boolean => {
  if (name === 'abort') return accepts(node, 'AttemptAborted') || accepts(node, 'AttemptGivenUp')
  if (name === 'provide') return accepts(node, 'ProvisionRequested', 'cleaning')
  if (name !== 'retry') return accepts(node, commands[name].event)
  const event = again(node)?.event({ clean: [] })
  return event !== undefined && accepts(node, event.type, 'then' in event.data ? event.data.then : undefined)
}

export const allowedCommands = (node: Node): CommandName[] =>
  (Object.keys(commands) as CommandName[]).filter((name) => isAllowed(node, name))
