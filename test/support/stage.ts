/** What the driver `stage` plays: the plans, the steps and the BMC of one node, in the hands of a test. */
import type { EffectName, JsonObject, Step } from '../../machines/node/phase.ts'
import { type Bmc, BmcError, type PowerState } from '../../src/bmc/port.ts'
import type { Job } from '../../src/effects/job.ts'

export type Scene = {
  plan(effect: EffectName): Step[]
  act(job: Job): Promise<JsonObject>
  readonly bmc: Bmc
  /** What the chassis is, as the BMC sees it; 'silent' for a BMC that does not answer. */
  chassis: PowerState | 'silent'
  /** What the BMC was asked to change, in order. */
  readonly asked: string[]
}

export const HARDWARE: JsonObject = {
  arch: 'x86_64',
  cores: 2,
  cpus: 4,
  memory_mib: 2048,
  disks: [{ name: 'sda', bytes: 8_589_934_592, rotational: false, serial: 'STAGE1' }],
  nics: [],
  firmware: 'uefi',
  document: null,
}

const scenes = new Map<string, Scene>()

export const sceneOf = (address: unknown): Scene => {
  const scene = scenes.get(String(address))
  if (!scene) throw new Error(`no test plays ${String(address)}`)
  return scene
}

export const aStep = (step: string, deadline_s: number, args: JsonObject = {}): Step => {
  const [face = '', word = ''] = step.split('.')
  return { interface: face, step: word, args, deadline_s }
}

/** One step for each phase, which succeeds at once, unless `how` says otherwise. */
export const playScene = (address: string, how: Partial<Pick<Scene, 'plan' | 'act' | 'chassis'>> = {}): Scene => {
  const asked: string[] = []
  const scene: Scene = {
    plan: (effect) => (effect === 'switch-power' ? [aStep('power.on', 60)] : [aStep('stage.act', 60, { effect })]),
    act: async () => ({ hardware: HARDWARE }),
    chassis: 'off',
    asked,
    bmc: {
      power: {
        state: async () => seen(scene),
        async set(to) {
          seen(scene)
          asked.push(to)
          scene.chassis = to
        },
        async softOff() {
          seen(scene)
          asked.push('soft-off')
        },
        async reset() {
          seen(scene)
          asked.push('reset')
        },
      },
      management: {
        bootDevice: async () => 'none',
        setBootDevice: async () => {},
        identify: async () => {},
        sensors: async () => [],
        systemEventLog: async () => [],
        info: async () => ({ manufacturer: '', product: '', firmware: '', protocol: '', guid: null }),
      },
    },
    ...how,
  }
  scenes.set(address, scene)
  return scene
}

/** Holds a step until the test lets it go, or it is aborted. */
export const held = () => {
  const begun = Promise.withResolvers<Job>()
  const let_go = Promise.withResolvers<void>()
  const act: Scene['act'] = async (job) => {
    begun.resolve(job)
    const aborted = new Promise<never>((_, reject) => {
      job.signal.addEventListener('abort', () => reject(new Error('aborted')))
    })
    await Promise.race([let_go.promise, aborted])
    return { hardware: HARDWARE }
  }
  return { act, begun: begun.promise, letGo: () => let_go.resolve() }
}
const seen = ({ chassis }: Scene): PowerState => {
  if (chassis === 'silent') throw new BmcError('no-answer', 'the BMC on stage is silent')
  return chassis
}
