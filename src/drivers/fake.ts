/**
 * A node that does not exist: to try Bloomery without hardware, and to load it.
 *
 * Every step of a life takes as long as `delays_ms` says and fails as `failures` says. With `state_file` the node
 * outlives the service as hardware does: its power, its disk, and a journal of all that was done to it are in that file.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { z } from 'zod'
import { hardware } from '../../machines/node/discovery.ts'
import { type EffectName, type JsonObject, type Step, stepName } from '../../machines/node/phase.ts'
import { type Bmc, BmcError, type BootDevice, type PowerState } from '../bmc/port.ts'
import { type Interface, type Job, StepFailure, type StepHandler } from '../effects/job.ts'
import { management } from '../effects/management.ts'
import { burnInSteps, cleaningStep, powerSteps, step } from '../effects/plans.ts'
import { power } from '../effects/power.ts'
import type { Driver, PlanAsk } from './driver.ts'

const GIB = 2 ** 30
/** In how many pieces the pretended image is written. */
const CHUNKS = 8

const options = z.strictObject({
  address: z.string().default('fake').describe('any word: it appears in error messages'),
  delays_ms: z
    .record(z.string(), z.number().min(0).max(3_600_000))
    .default({})
    .describe('how long a step takes, by its name such as "deploy.write", or "default"'),
  failures: z
    .record(z.string(), z.int().min(0))
    .default({})
    .describe('how often a step fails before it works, by its name; "bmc" makes the BMC silent that often'),
  hardware: hardware.partial().optional().describe('what discovery finds'),
  state_file: z.string().optional().describe('where the pretended node keeps its state when the service stops'),
})
type Options = z.output<typeof options>

/** One line of the state file. */
type Entry = { readonly did: string; readonly pid: number; readonly [key: string]: unknown }

const openMachine = ({ state_file, failures, address }: Options) => {
  const left = new Map(Object.entries(failures))
  let power: PowerState = 'off'
  let boot: BootDevice = 'none'
  const apply = (entry: Entry) => {
    if (entry.did === 'power') power = entry['to'] as PowerState
    if (entry.did === 'boot-device') boot = entry['device'] as BootDevice
    if (entry.did === 'fail') left.set(String(entry['what']), Number(entry['left']))
  }
  if (state_file && existsSync(state_file)) {
    for (const line of readFileSync(state_file, 'utf8').split('\n')) if (line) apply(JSON.parse(line) as Entry)
  }
  return {
    address,
    power: () => power,
    boot: () => boot,
    does(did: string, more: object = {}) {
      const entry = { did, pid: process.pid, ...more }
      apply(entry)
      if (state_file) appendFileSync(state_file, `${JSON.stringify(entry)}\n`)
    },
    /** Whether this is to fail now; counts down. */
    fails(what: string): boolean {
      const times = left.get(what) ?? 0
      if (times > 0) this.does('fail', { what, left: times - 1 })
      return times > 0
    },
  }
}

type FakeBmc = Bmc & { readonly machine: ReturnType<typeof openMachine>; readonly options: Options }

const connect = (given: unknown): FakeBmc => {
  const settings = given as Options
  const machine = openMachine(settings)
  const answer = async <T>(value: T): Promise<T> => {
    if (machine.fails('bmc')) throw new BmcError('no-answer', `BMC ${machine.address} did not answer`)
    return value
  }
  return {
    machine,
    options: settings,
    power: {
      state: () => answer(machine.power()),
      async set(to) {
        await answer(null)
        if (machine.power() !== to) machine.does('power', { to })
      },
      async softOff() {
        await answer(null)
        machine.does('power', { to: 'off', soft: true })
      },
      async reset() {
        if ((await answer(machine.power())) === 'off') throw new BmcError('refused', `${machine.address} is off`)
        machine.does('reset')
      },
    },
    management: {
      bootDevice: () => answer(machine.boot()),
      async setBootDevice(device) {
        await answer(null)
        if (machine.boot() !== device) machine.does('boot-device', { device })
      },
      identify: (duration_s) => answer(machine.does('identify', { duration_s })),
      sensors: () => answer([{ name: 'CPU Temp', value: 45, unit: 'celsius', status: 'ok' }]),
      systemEventLog: () => answer([]),
      info: () => answer({ manufacturer: 'Bloomery', product: 'fake', firmware: '1.0', protocol: 'none', guid: null }),
    },
  }
}

/** A step that takes its time, fails when it is told to, and then does what `work` says. */
const pretend = (work: (job: Job, machine: FakeBmc['machine'], options: Options) => Promise<JsonObject> | JsonObject) =>
  ({
    repeatable: true,
    async run(job) {
      const { machine, options } = job.bmc as FakeBmc
      const name = stepName(job.step)
      const { [name]: own, default: common = 0 } = options.delays_ms
      const delay_ms = own ?? common
      if (delay_ms > 0 && name !== 'deploy.write') {
        await job.gap.away(() => job.clock.sleep(delay_ms, job.signal))
        job.signal.throwIfAborted()
      }
      if (machine.fails(name)) throw new StepFailure('pretended', `${name} was told to fail`)
      return work(job, machine, options)
    },
  }) satisfies StepHandler

const burnInStep = pretend((job) => ({
  tool: 'fake',
  version: '1.0',
  seconds: Number(job.step.args['seconds'] ?? 0),
  figures: {},
  failures: [],
  temperatures: [],
}))

const diskOf = ({ hardware }: Options): JsonObject => {
  const disk = hardware?.disks?.[0]
  return { name: disk?.name ?? 'fda', serial: disk?.serial ?? 'FAKE0001' }
}

/** Writes in pieces, each by this process: a journal with two writers would show. */
const write = pretend(async (job, machine, options) => {
  const { image } = (job.node().work?.request.data ?? {}) as { image?: { checksum?: string } }
  const delay_ms = options.delays_ms['deploy.write'] ?? options.delays_ms['default'] ?? 0
  machine.does('write-begin', { attempt: job.attempt, run: job.run })
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    if (delay_ms > 0) await job.gap.away(() => job.clock.sleep(delay_ms / CHUNKS, job.signal))
    job.signal.throwIfAborted()
    if (delay_ms > 0) machine.does('write', { chunk, content: `${image?.checksum ?? 'none'}/${chunk}` })
    job.progress({ done: chunk + 1, total: CHUNKS, unit: 'percent' })
  }
  machine.does('write-end', { attempt: job.attempt, run: job.run, content: image?.checksum ?? null })
  return { root_disk: diskOf(options) }
})

const interfaces: Record<string, Interface> = {
  power,
  management,
  inspect: {
    collect: pretend((_, __, { hardware }) => ({
      hardware: {
        arch: 'x86_64',
        cores: 4,
        cpus: 8,
        cpu_model: 'Fake 1',
        memory_mib: 16_384,
        disks: [{ name: 'fda', bytes: 16 * GIB, rotational: false, serial: 'FAKE0001', model: 'Fake disk' }],
        nics: [],
        firmware: 'uefi',
        vendor: 'Bloomery',
        product: 'fake',
        serial: '',
        document: null,
        ...(hardware as JsonObject | undefined),
      },
    })),
  },
  'burn-in': { cpu: burnInStep, memory: burnInStep, disk: burnInStep, network: burnInStep },
  clean: {
    wipe: pretend((_, machine, options) => {
      machine.does('wipe')
      return { disks: [{ ...diskOf(options), method: 'metadata' }] }
    }),
    erase: pretend((_, machine, options) => {
      machine.does('erase')
      return { disks: [{ ...diskOf(options), method: 'overwrite' }] }
    }),
  },
  deploy: { write },
  boot: { tenant: pretend((_, machine) => ({ observed: `pretended to boot with the power ${machine.power()}` })) },
}

const plans: Record<EffectName, (ask: PlanAsk) => Step[]> = {
  verify: ({ deadlines }) => [step('management.info', deadlines.bmc)],
  discover: ({ deadlines }) => [step('power.on', deadlines.power), step('inspect.collect', deadlines.inspect)],
  'burn-in': burnInSteps,
  clean: (ask) => [cleaningStep(ask), step('power.off', ask.deadlines.power)],
  deploy: ({ deadlines }) => [
    step('deploy.write', deadlines.write),
    step('power.on', deadlines.power),
    step('boot.tenant', deadlines.tenant_boot),
  ],
  undeploy: ({ deadlines }) => [step('power.off', deadlines.power)],
  'switch-power': powerSteps,
}

const driver: Driver = {
  doc: 'A node that does not exist, with settable delays and failures.',
  options,
  secrets: z.strictObject({ password: z.string().optional() }),
  connect,
  deploy_interfaces: ['fake'],
  interfaces,
  plan: (effect, ask) => plans[effect](ask),
}
export default driver
