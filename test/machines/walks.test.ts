/** Random walks through a node's life: whatever is allowed can be recorded, and what is folded always makes sense. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { allowedCommands, type CommandName, commands, isAllowed } from '../../machines/node/commands.ts'
import { evolve, isBusy, lifeStates, type Node, type NodeEvent, stateOf } from '../../machines/node/machine.ts'
import { BUSY } from '../../machines/node/phase.ts'
import { whyNot } from '../../machines/node/refusal.ts'
import { nodeView } from '../../projections/node-view.ts'
import { AT, BODIES, beginning, broken, nodeAt, onward, proposed, then } from '../support/node-builder.ts'

const RUNS = 200
const TURNS = 120

type Turn =
  | { readonly kind: 'command'; readonly pick: number; readonly then: number }
  | { readonly kind: 'onward' | 'broken' | 'crash' | 'seen' | 'late' }

const turn: fc.Arbitrary<Turn> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('command' as const), pick: fc.nat(), then: fc.nat() }) },
  { weight: 12, arbitrary: fc.constant({ kind: 'onward' as const }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(...(['broken', 'crash', 'seen', 'late'] as const).map((kind) => ({ kind }))),
  },
)

/** A walk begins somewhere on the usual way, so that all of the life is walked. */
const start = fc.constantFrom(
  ...['enrolled', 'manageable', 'available', 'deploying', 'active', 'undeploying'].map(nodeAt),
)
const walks = fc.tuple(start, fc.array(turn, { maxLength: TURNS, size: 'max' }))

const BODY_CHOICES: Partial<Record<CommandName, readonly object[]>> = {
  provide: [{}, { burn_in: 'never' }, { burn_in: 'always', erase: 'full' }],
  clean: [{}, { erase: 'full' }],
  power: [{ action: 'on' }, { action: 'cycle' }, { action: 'reset' }],
  'set-maintenance': [{ reason: 'r' }, { reason: 'r', running: 'abort' }],
}

/** The events of one turn, as the service would record them. */
const eventsOf = (node: Node, turn: Turn): readonly NodeEvent[] => {
  switch (turn.kind) {
    case 'command': {
      const allowed = allowedCommands(node)
      const name = allowed[turn.pick % allowed.length]
      if (!name || (name === 'forget' && turn.then % 32 !== 0)) return []
      const bodies = BODY_CHOICES[name] ?? [BODIES[name] ?? {}]
      return proposed(node, name, bodies[turn.then % bodies.length] as never)
    }
    case 'onward':
      return node.work ? [onward(node)] : []
    case 'crash':
      return node.work && node.work.run > 0 ? [beginning(node)] : []
    case 'seen':
      return isKnown(node) ? [{ type: 'PowerObserved', data: { power: 'on', before: node.facts.power } }] : []
    case 'late':
      return isKnown(node) ? [{ type: 'LateReportReceived', data: { attempt: 0, what: 'a result' } }] : []
    case 'broken':
      return []
  }
}
const isKnown = (node: Node) => stateOf(node) !== 'forgotten'

const walk = ([start, turns]: [Node, readonly Turn[]], visit: (node: Node, before: Node) => void): Node => {
  let node = start
  for (const turn of turns) {
    const before = node
    const hasStep = node.work !== null && node.work.cursor < node.work.plan.length
    node = turn.kind === 'broken' && hasStep ? broken(node) : then(node, eventsOf(node, turn))
    visit(node, before)
  }
  return node
}
const always = (visit: (node: Node, before: Node) => void) =>
  fc.assert(
    fc.property(walks, (walked) => void walk(walked, visit)),
    { numRuns: RUNS },
  )

suite('on any walk', () => {
  test('what is allowed is recorded without a word of protest, and what is not says why', () => {
    always((node, before) => {
      if (node.life === before.life) return
      for (const name of Object.keys(commands) as CommandName[]) {
        const body = name === 'provide' ? { burn_in: 'never' } : BODIES[name]
        if (isAllowed(node, name)) then(node, proposed(node, name, body as never))
        else assert.ok(whyNot(node, name).length > 10)
      }
    })
  })

  test('a node is busy exactly when something is at work on it', () => {
    always(({ life, work, ...node }) => {
      const busy = (BUSY as readonly string[]).includes(life.value.life)
      assert.equal(busy || life.value.power === 'switching', work !== null)
      assert.equal(life.hasTag('busy'), isBusy({ life, work, ...node }))
      if (work) assert.equal(work.effect === 'switch-power', life.value.power === 'switching')
    })
  })

  test('work keeps its place: the cursor stays in the plan, a result for each step done, an attempt that never changes', () => {
    always(({ work }, before) => {
      if (!work) return
      assert.ok(work.cursor <= work.plan.length)
      assert.equal(work.results.length, work.cursor)
      assert.equal(work.run > 0, work.step_started_at !== null)
      if (before.work?.since === work.since) {
        assert.equal(work.request, before.work.request)
        assert.ok(work.cursor >= before.work.cursor)
      }
      for (const step of work.plan) assert.ok(step.deadline_s > 0)
    })
  })

  test('a failed state has a reason, and a busy one has none of an earlier attempt', () => {
    always((node, before) => {
      const failed = lifeStates[stateOf(node)]?.tags.includes('failed')
      if (failed) assert.ok(node.facts.failure)
      if (node.work && before.work?.since !== node.work.since && !failed) assert.equal(node.facts.failure, null)
    })
  })

  test('an instance is there from the deployment until it is cleaned away, and nowhere else', () => {
    always((node) => {
      const state = stateOf(node)
      if (['deploying', 'active'].includes(state)) assert.ok(node.facts.instance, state)
      if (['enrolled', 'manageable', 'available', 'discovering', 'burning-in'].includes(state) && !wasGivenUp(node)) {
        assert.equal(node.facts.instance, null, state)
      }
      assert.equal(node.facts.maintenance !== null, node.life.value.maintenance === 'on')
    })
  })

  test('every state but unknown is come to', () => {
    const visited = new Set<string>()
    always((node) => void visited.add(stateOf(node)))
    assert.deepEqual(
      Object.keys(lifeStates).filter((state) => state !== 'unknown' && !visited.has(state)),
      [],
    )
  })

  test('the API can show it', () => {
    always((node) => void JSON.stringify(nodeView('id', node)))
  })

  test('the same events make the same node', () => {
    fc.assert(
      fc.property(walks, ([start, turns]) => {
        const events: NodeEvent[] = []
        let node = start
        for (const turn of turns) {
          const news = eventsOf(node, turn)
          events.push(...news)
          node = then(node, news)
        }
        const replayed = events.reduce((state, event) => evolve(state, JSON.parse(JSON.stringify(event)), AT), start)
        assert.deepEqual(JSON.parse(JSON.stringify(replayed)), JSON.parse(JSON.stringify(node)))
      }),
      { numRuns: 100 },
    )
  })
})

/** A tenant's disk that was not cleaned, because cleaning it failed and was given up: the log still names the tenant. */
const wasGivenUp = (node: Node) => node.facts.instance !== null && node.asked?.type !== 'DeploymentRequested'
