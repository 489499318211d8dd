/** How a phase ends: the event that its finished steps, or its failed one, lead to. */
import { changesBetween, type Hardware } from './discovery.ts'
import type { Node, NodeEvent } from './machine.ts'
import type { EffectName, JsonObject } from './phase.ts'
import { currentStep, type Work } from './work.ts'

/** The event that says the phase is done, made from the evidence of its steps. */
export const conclude = (node: Node, work: Work): NodeEvent => conclusions[work.effect](node, work)

/** The event that says the phase failed, for the reason that its step gave. */
export const failureOf = (work: Work, { code, reason }: { code: string; reason: string }): NodeEvent => ({
  type: FAILURES[work.effect],
  data: { code, reason, step: currentStep(work) },
})

const FAILURES = {
  verify: 'VerificationFailed',
  discover: 'DiscoveryFailed',
  'burn-in': 'BurnInFailed',
  clean: 'CleaningFailed',
  deploy: 'DeploymentFailed',
  undeploy: 'UndeploymentFailed',
  'switch-power': 'PowerFailed',
} as const satisfies Record<EffectName, NodeEvent['type']>

const conclusions: Record<EffectName, (node: Node, work: Work) => NodeEvent> = {
  verify: (_, work) => ({ type: 'VerificationSucceeded', data: { bmc: found(work, 'bmc') ?? {} } }),
  discover: (node, work) => {
    const hardware = found(work, 'hardware') as unknown as Hardware
    return { type: 'DiscoverySucceeded', data: { hardware, changes: changesBetween(node.facts.hardware, hardware) } }
  },
  'burn-in': (_, work) => ({
    type: 'BurnInSucceeded',
    data: { then: work.request.data.plans.clean ? 'cleaning' : 'manageable' },
  }),
  clean: (_, work) => ({
    type: 'CleaningSucceeded',
    data: {
      then: work.request.data['goal'] === 'manageable' ? 'manageable' : 'available',
      disks: work.results.flatMap((evidence) =>
        Array.isArray(evidence['disks']) ? evidence['disks'] : [],
      ) as JsonObject[],
    },
  }),
  deploy: (_, work) => ({
    type: 'DeploymentSucceeded',
    data: { root_disk: found(work, 'root_disk'), observed: String(last(work, 'observed') ?? '') },
  }),
  undeploy: () => ({ type: 'UndeploymentSucceeded', data: {} }),
  'switch-power': () => ({ type: 'PowerSucceeded', data: {} }),
}

/** The last step's word on something. */
const last = (work: Work, key: string) => work.results.findLast((evidence) => evidence[key] !== undefined)?.[key]
const found = (work: Work, key: string) => (last(work, key) ?? null) as JsonObject | null
