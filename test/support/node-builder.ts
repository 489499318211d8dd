/** Nodes for tests, by the events that lead to them: given these events, when this command, then those events. */

import assert from 'node:assert/strict'
import { transition } from 'xstate'
import type { Command } from '../../machines/node/command.ts'
import { type CommandName, commands, isAllowed, planBody } from '../../machines/node/commands.ts'
import { blank, evolve, type Life, machine, type Node, type NodeEvent } from '../../machines/node/machine.ts'
import { conclude, failureOf } from '../../machines/node/outcome.ts'
import type { EffectName, JsonObject, Plans } from '../../machines/node/phase.ts'
import fake from '../../src/drivers/fake.ts'
import { DEFAULT_DEADLINES_S } from '../../src/effects/deadlines.ts'
import { CHECKSUM } from './image.ts'
import { HARDWARE } from './stage.ts'

export const AT = '2026-01-01T00:00:00.000Z'

export const ENROLLED: NodeEvent = {
  type: 'NodeEnrolled',
  data: {
    name: 'n1',
    driver: 'fake',
    bmc: { address: 'n1' },
    credential: null,
    deploy_interface: null,
    metadata: {},
    ports: [],
  },
}

export const given = (...events: NodeEvent[]): Node => then(blank, events)
export const then = (node: Node, events: readonly NodeEvent[]): Node =>
  events.reduce((state, event) => evolve(state, event, AT), node)

/** The least that a command's body must say. */
export const BODIES: Partial<Record<CommandName, JsonObject>> = {
  deploy: { image: { url: 'http://images.example/os.raw', format: 'raw', checksum: CHECKSUM } },
  rename: { name: 'n2' },
  update: { metadata: { rack: '7' } },
  power: { action: 'on' },
  'set-maintenance': { reason: 'a disk is replaced' },
}

/** What the command proposes, with the plans of the fake driver, as the service asks for them. */
export const proposed = (
  node: Node,
  name: CommandName,
  body: JsonObject = BODIES[name] ?? {},
): readonly NodeEvent[] => {
  const command: Command = commands[name]
  const parsed = command.body.parse(body) as object
  const effects = command.effects(parsed, node)
  const ask = {
    facts: node.facts,
    body: planBody(node, name, parsed),
    deadlines: DEFAULT_DEADLINES_S,
    agent_is_up: false,
    keep_agent: false,
  }
  const plans = Object.fromEntries(effects.map((effect: EffectName) => [effect, fake.plan(effect, ask)])) as Plans
  return command.propose(parsed, { node, plans, id: () => '01890a5d-ac96-774b-bcce-b302099a8057' })
}

export const when = (node: Node, name: CommandName, body?: JsonObject): Node => {
  assert.ok(isAllowed(node, name), `${name} is not allowed`)
  return then(node, proposed(node, name, body))
}

/** The next event of the work at hand, if all goes well. */
export const onward = (node: Node): NodeEvent => {
  const { work } = node
  assert.ok(work, 'nothing is at work')
  const step = work.plan[work.cursor]
  const at = { attempt: work.request.revision, index: work.cursor, gap_ms: 0 }
  if (!step) return conclude(node, work)
  if (work.run === 0) return beginning(node)
  const evidence: JsonObject = { hardware: HARDWARE, bmc: {}, observed: 'it', root_disk: { name: 'sda' } }
  return { type: 'StepSucceeded', data: { ...at, evidence } }
}

/** The step at hand is begun: for the first time, or again after a crash. */
export const beginning = ({ work }: Node): NodeEvent => {
  const step = work?.plan[work.cursor]
  assert.ok(work && step, 'no step is left')
  const data = { attempt: work.request.revision, index: work.cursor, run: work.run + 1 }
  return { type: 'StepStarted', data: { ...data, interface: step.interface, step: step.step } }
}

/** Until nothing is at work on the node any more. */
export const finished = (node: Node): Node => {
  let state = node
  for (let events = 0; state.work && events < 1000; events++) state = evolve(state, onward(state), AT)
  assert.equal(state.work, null)
  return state
}

/** The step at hand is begun and fails, and the phase with it. */
export const broken = (node: Node): Node => {
  const started = node.work?.run === 0 ? evolve(node, onward(node), AT) : node
  assert.ok(started.work)
  const at = { attempt: started.work.request.revision, index: started.work.cursor, gap_ms: 0 }
  const failed = { code: 'pretended', reason: 'it was told to' }
  return then(started, [
    { type: 'StepFailed', data: { ...at, ...failed, evidence: {} } },
    failureOf(started.work, failed),
  ])
}

/** A node on the usual way, as far as that phase has begun or that state is reached. */
export const nodeAt = (state: string): Node => {
  const way: readonly CommandName[] = ['verify', 'discover', 'provide', 'deploy', 'undeploy']
  let node = given(ENROLLED)
  if (is(node, state)) return node
  for (const name of way) {
    node = when(node, name)
    while (node.work) {
      if (is(node, state)) return node
      node = evolve(node, onward(node), AT)
    }
    if (is(node, state)) return node
  }
  return assert.fail(`the usual way does not lead to ${state}`)
}
const is = (node: Node, state: string) => node.life.value.life === state

/** The machine's own snapshot in that state. */
export const lifeAt = (state: string): Life => {
  const { life } = nodeAt(state)
  assert.equal(transition(machine, life, { type: 'AgentRefused' })[0], life)
  return life
}
