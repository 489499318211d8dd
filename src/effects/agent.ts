/** Orders to the ramdisk: given, followed, and read back. */
import { z } from 'zod'
import { macAddress } from '../../machines/node/enrolment.ts'
import type { JsonObject } from '../../machines/node/phase.ts'
import type { Order, OrderEnd } from '../boot/agents.ts'
import { whileOn } from './awake.ts'
import { type Job, StepFailure } from './job.ts'

/** Exit code of the agent: the download is not what it should be, and the disk was left without its first mebibyte. */
export const WRONG_CHECKSUM = 3
/** Exit code of the agent: a download broke off; what it had begun may be begun again. */
export const BROKEN_DOWNLOAD = 4

/** An agent at work reports about once a second. */
const QUIET_MS = 5_000

type Give = {
  readonly args?: Order['args']
  readonly data?: Order['data']
  /** Tells orders of one step apart. An order with the same name is the same order, also after a restart. */
  readonly name?: string
}

/** @throws {StepFailure} when the agent says that it could not */
export const order = async (job: Job, verb: string, give: Give = {}): Promise<OrderEnd> => {
  const end = await tryOrder(job, verb, give)
  if (end.rc === 0) return end
  const reason = typeof end.body['reason'] === 'string' ? end.body['reason'] : `the agent ended it with code ${end.rc}`
  throw new StepFailure(`agent-${verb}`, reason, end.body)
}

/** As `order`, for whoever reads the exit code. */
export const tryOrder = (job: Job, verb: string, { args = {}, data, name = verb }: Give = {}): Promise<OrderEnd> => {
  job.waitFor(`the ramdisk to carry out "${verb}"`)
  const id = `${job.attempt}.${job.index}.${name}`
  const given = { id, verb, args, ...(data === undefined ? {} : { data }) }
  const { agents } = job.services
  const isQuiet = () => agents.silent_ms(job.id) > QUIET_MS
  const { progress: onProgress } = job
  return job.gap.away(() => whileOn(job, (signal) => agents.order(job.id, given, { signal, onProgress }), isQuiet))
}

const disk = z.object({
  name: z.string().regex(/^[a-z0-9]+$/),
  bytes: z.number(),
  rotational: z.boolean(),
  serial: z.string().default(''),
  model: z.string().default(''),
  bus: z.string().default(''),
})
export type AgentDisk = z.infer<typeof disk>

/** What the agent said of the node when it came up; kept in the blob store. */
const inventory = z.object({
  serial: z.string().default(''),
  vendor: z.string().default(''),
  product: z.string().default(''),
  firmware: z.enum(['bios', 'uefi']),
  arch: z.string(),
  cpus: z.int().positive(),
  cores: z.int().positive(),
  cpu_model: z.string().default(''),
  memory_mib: z.int().positive(),
  nics: z.array(
    z.object({ mac: macAddress, name: z.string(), driver: z.string().nullable().default(null), carrier: z.boolean() }),
  ),
  disks: z.array(disk),
  tools: z.array(z.string()).default([]),
})
export type AgentInventory = z.infer<typeof inventory>

/** The inventory of the ramdisk that is up now. @throws {StepFailure} when none is, or it cannot be read */
export const inventoryOf = async (job: Job): Promise<AgentInventory> => {
  const document = job.node().work?.agent?.document
  if (!document) throw new StepFailure('no-agent', 'no ramdisk has come up in this attempt')
  const stream = await job.services.blobs.get(document.sha256)
  if (!stream) throw new StepFailure('no-document', `the inventory ${document.sha256} is not in the blob store`)
  const text = Buffer.concat(await stream.toArray()).toString('utf8')
  const parsed = inventory.safeParse(JSON.parse(text))
  if (parsed.success) return parsed.data
  throw new StepFailure('bad-inventory', `the ramdisk's inventory is not readable: ${z.prettifyError(parsed.error)}`)
}

export const named = (disk: AgentDisk): JsonObject => ({
  name: disk.name,
  serial: disk.serial,
  bytes: disk.bytes,
  model: disk.model,
})
