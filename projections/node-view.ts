/** A node as the API shows it: its state in words, what it is at, what it is made of, and what may be asked of it now. */
import { allowedCommands } from '../machines/node/commands.ts'
import { isBusy, type Node, stateOf } from '../machines/node/machine.ts'
import { stepName } from '../machines/node/phase.ts'
import type { Work } from '../machines/node/work.ts'

export const summary = (id: string, node: Node) => ({
  id,
  name: node.facts.name,
  state: stateOf(node),
  since: node.entered.at,
  busy: isBusy(node),
  driver: node.facts.driver,
  power: node.facts.power,
  maintenance: node.facts.maintenance !== null,
  failure: node.facts.failure,
  revision: node.revision,
})

export const nodeView = (id: string, node: Node) => {
  const { facts } = node
  return {
    ...summary(id, node),
    power: { observed: facts.power, switching: node.life.value.power === 'switching' },
    maintenance: facts.maintenance,
    metadata: facts.metadata,
    bmc: { settings: facts.bmc, credential: facts.credential, info: facts.bmc_info, lost: facts.bmc_lost },
    deploy_interface: facts.deploy_interface,
    ports: facts.ports,
    hardware: facts.hardware,
    burned_in: facts.burned_in,
    instance: facts.instance,
    enrolled_at: facts.enrolled_at,
    work: node.work && workView(node.work),
    allowed_commands: allowedCommands(node),
  }
}

const workView = (work: Work) => {
  const step = work.plan[work.cursor]
  const deadline_ms = step && work.step_started_at ? Date.parse(work.step_started_at) + step.deadline_s * 1000 : null
  return {
    effect: work.effect,
    attempt: work.request.revision,
    command: work.request.command ?? null,
    since: work.since_at,
    step: step ? { index: work.cursor, name: stepName(step), started_at: work.step_started_at } : null,
    /** When the running step is given up, if nothing else ends it. */
    deadline_at: deadline_ms === null ? null : new Date(deadline_ms).toISOString(),
    plan: work.plan.map((planned, index) => ({
      step: stepName(planned),
      status: index < work.cursor ? 'done' : index === work.cursor && work.run > 0 ? 'running' : 'waiting',
    })),
    boot: work.boot,
    agent: work.agent ? { address: work.agent.address, connected_at: work.agent.at } : null,
  }
}
