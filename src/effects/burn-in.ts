/** Burn-in steps: the ramdisk works one part of the node hard; what it measured, and what the BMC saw meanwhile, is kept. */
import type { JsonObject } from '../../machines/node/phase.ts'
import { BmcError, type SelEntry, type Sensor } from '../bmc/port.ts'
import type { OrderEnd } from '../boot/agents.ts'
import { inventoryOf, tryOrder } from './agent.ts'
import { type Interface, type Job, StepFailure, type StepHandler } from './job.ts'

const BYTES_PER_MIB = 1_048_576
/** How many lines of the system event log one step keeps as evidence. */
const MAX_SEL_ENTRIES = 100

type Measured = { readonly ends: readonly OrderEnd[]; readonly evidence: JsonObject }

/** A step that runs `measure` on the node with the BMC watched before and after. */
const watched = (measure: (job: Job) => Promise<Measured>): StepHandler => ({
  // Taken up again after a restart: the agent that has the order in hand goes on with it.
  repeatable: true,
  async run(job) {
    const before = await bmcSays(job, (bmc) => bmc.management.systemEventLog(job.signal))
    const { ends, evidence } = await measure(job)
    const after = await bmcSays(job, (bmc) => bmc.management.systemEventLog(job.signal))
    const sensors = await bmcSays(job, (bmc) => bmc.management.sensors(job.signal))
    const all: JsonObject = {
      ...evidence,
      sel_added: addedTo(before, after)
        .slice(0, MAX_SEL_ENTRIES)
        .map((entry) => ({ ...entry })),
      bmc_temperatures: temperaturesOf(sensors).map((sensor) => ({ ...sensor })),
    }
    const wrong = ends.find(({ rc }) => rc !== 0)
    if (wrong) throw new StepFailure('burn-in-failed', String(wrong.body['reason'] ?? `code ${wrong.rc}`), all)
    const max_celsius = Number(job.step.args['max_celsius'])
    const hottest = Math.max(...temperaturesIn(all), Number.NEGATIVE_INFINITY)
    if (max_celsius > 0 && hottest > max_celsius) {
      throw new StepFailure('too-hot', `${hottest} °C was measured; the limit is ${max_celsius} °C`, all)
    }
    return all
  },
})

export const burnIn: Interface = {
  cpu: watched(async (job) => one(await tool(job, 'cpu', { seconds: num(job, 'seconds'), workers: 0 }))),
  memory: watched(async (job) =>
    one(await tool(job, 'memory', { seconds: num(job, 'seconds'), percent: num(job, 'percent') || 80 })),
  ),
  disk: watched(async (job) => {
    const { disks } = await inventoryOf(job)
    // A node that carries a tenant is only read from, whatever the plan says.
    const mode = job.node().facts.instance ? 'read' : String(job.step.args['mode'] ?? 'verify-write')
    const ends: OrderEnd[] = []
    for (const { name, serial } of disks) {
      const args = {
        disk: name,
        serial,
        seconds: num(job, 'seconds'),
        bytes: num(job, 'mebibytes') * BYTES_PER_MIB,
        mode,
      }
      ends.push(await tool(job, 'disk', args, `disk.${name}`))
      if (ends.at(-1)?.rc !== 0) break
    }
    return {
      ends,
      evidence: { mode, disks: ends.map((end, i) => ({ disk: disks[i]?.name ?? '', ...evidenceOf(end) })) },
    }
  }),
  network: watched(async (job) => {
    const end = await tool(job, 'network', { bytes: num(job, 'mebibytes') * BYTES_PER_MIB })
    const measured = one(end)
    const limit = num(job, 'min_mbit_per_s')
    const slow = Object.entries((end.body['figures'] ?? {}) as Record<string, number>)
      .filter(([name]) => name.endsWith('_bytes_per_s'))
      .map(([name, bytes_per_s]) => [name.split('_')[0], Math.round((bytes_per_s * 8) / 1e6)] as const)
      .find(([, mbit_per_s]) => mbit_per_s < limit)
    if (slow) {
      const reason = `${slow[0]} moved ${slow[1]} Mbit/s; the limit is ${limit} Mbit/s`
      throw new StepFailure('too-slow', reason, measured.evidence)
    }
    return measured
  }),
}

const num = (job: Job, name: string) => Number(job.step.args[name] ?? 0)
const tool = (job: Job, verb: string, args: Record<string, string | number>, name = verb) =>
  tryOrder(job, verb, { args, name })
const one = (end: OrderEnd): Measured => ({ ends: [end], evidence: evidenceOf(end) })

const evidenceOf = ({ body, uploads }: OrderEnd): JsonObject => {
  const log = uploads.get('log')
  return { ...body, ...(log ? { log: { sha256: log.sha256, bytes: log.bytes } } : {}) }
}

/** The BMC is a witness here, not the accused: one that says nothing spoils no burn-in. */
const bmcSays = async <T>(job: Job, ask: (bmc: Job['bmc']) => Promise<readonly T[]>): Promise<readonly T[]> => {
  try {
    return await job.gap.away(() => ask(job.bmc))
  } catch (error) {
    job.signal.throwIfAborted()
    if (error instanceof BmcError) return []
    throw error
  }
}

const addedTo = (before: readonly SelEntry[], after: readonly SelEntry[]) => {
  const known = new Set(before.map(({ id, at, event }) => `${id} ${at} ${event}`))
  return after.filter(({ id, at, event }) => !known.has(`${id} ${at} ${event}`))
}

const temperaturesOf = (sensors: readonly Sensor[]) => sensors.filter(({ unit }) => /degrees c|celsius|°c/i.test(unit))

/** Every temperature in the evidence, whoever measured it. */
const temperaturesIn = (evidence: JsonObject): number[] => {
  const inBand = [evidence['temperatures'] ?? []].flat() as JsonObject[]
  const outOfBand = (evidence['bmc_temperatures'] ?? []) as JsonObject[]
  return [...inBand.map((entry) => entry['celsius']), ...outOfBand.map((entry) => entry['value'])].filter(
    (value): value is number => typeof value === 'number',
  )
}
