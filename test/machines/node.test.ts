/** What a node remembers and what it refuses: given events, when a command or an event, then others. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { allowedCommands, type CommandName, commands, isAllowed } from '../../machines/node/commands.ts'
import {
  blank,
  evolve,
  lifeStates,
  type Node,
  type NodeEvent,
  stateOf,
  UnexpectedEvent,
} from '../../machines/node/machine.ts'
import { BUSY } from '../../machines/node/phase.ts'
import { whyNot } from '../../machines/node/refusal.ts'
import { MAX_MILESTONES } from '../../machines/node/work.ts'
import {
  AT,
  BODIES,
  beginning,
  broken,
  ENROLLED,
  finished,
  given,
  nodeAt,
  onward,
  proposed,
  then,
  when,
} from '../support/node-builder.ts'

const refuses = (node: Node, event: NodeEvent) => assert.throws(() => evolve(node, event, AT), UnexpectedEvent)
const aborted: NodeEvent = { type: 'AttemptAborted', data: { reason: 'changed my mind', step: null } }

suite('a node', () => {
  test('does not exist before it is enrolled', () => {
    assert.deepEqual(allowedCommands(blank), [])
    refuses(blank, { type: 'PowerObserved', data: { power: 'on', before: null } })
    refuses(blank, { type: 'NodeRenamed', data: { name: 'x' } })
  })

  test('throws on an event that its state has no word for, rather than skip it', () => {
    const enrolled = given(ENROLLED)
    refuses(enrolled, ENROLLED)
    refuses(enrolled, { type: 'DeploymentSucceeded', data: { root_disk: null, observed: '' } })
    refuses(enrolled, aborted)
    refuses(enrolled, { type: 'PowerSucceeded', data: {} })
    refuses(enrolled, { type: 'MaintenanceCleared', data: {} })
  })

  test('takes no word for a phase that has steps left', () => {
    const verifying = nodeAt('verifying')
    const early: NodeEvent = { type: 'VerificationSucceeded', data: { bmc: {} } }
    refuses(verifying, early)
    refuses(evolve(verifying, onward(verifying), AT), early)
  })

  test('refuses a report that belongs to another attempt, another step, or a step that was not begun', () => {
    const begun = evolve(nodeAt('deploying'), onward(nodeAt('deploying')), AT)
    const report = onward(begun) as Extract<NodeEvent, { type: 'StepSucceeded' }>
    refuses(nodeAt('deploying'), report)
    for (const wrong of [{ attempt: report.data.attempt - 1 }, { attempt: report.data.attempt + 1 }, { index: 1 }]) {
      refuses(begun, { type: 'StepSucceeded', data: { ...report.data, ...wrong } })
    }
    refuses(then(begun, [aborted]), report)
    const again = when(then(begun, [aborted]), 'retry')
    refuses(evolve(again, beginning(again), AT), report)
  })

  test('counts each time that a step is begun, and its deadline from the first', () => {
    const deploying = nodeAt('deploying')
    const first = evolve(deploying, beginning(deploying), '2026-01-01T00:00:01.000Z')
    const second = evolve(first, beginning(first), '2026-01-01T00:00:09.000Z')
    assert.deepEqual([second.work?.run, second.work?.step_started_at], [2, '2026-01-01T00:00:01.000Z'])
    refuses(second, beginning(first))
  })

  test('keeps so many milestones of a boot and no more', () => {
    let node = nodeAt('discovering')
    const attempt = node.work?.request.revision ?? 0
    const seen: NodeEvent = { type: 'BootObserved', data: { attempt, kind: 'script', detail: '' } }
    for (let i = 0; i < MAX_MILESTONES; i++) node = evolve(node, seen, AT)
    refuses(node, seen)
  })

  for (const busy of BUSY) {
    test(`that failed while ${busy} says why, and a retry leads there again with a clean slate`, () => {
      const failed = broken(nodeAt(busy))
      assert.ok(stateOf(failed).endsWith('-failed'))
      assert.deepEqual([failed.facts.failure?.code, failed.facts.failure?.at], ['pretended', AT])
      assert.match(failed.facts.failure?.step ?? '', /^[a-z-]+\.[a-z-]+$/)
      const again = when(failed, 'retry')
      assert.equal(stateOf(again), busy)
      assert.equal(again.facts.failure, null)
      assert.equal(again.work?.cursor, 0)
      assert.notEqual(again.work?.request.revision, nodeAt(busy).work?.request.revision)
      assert.equal(
        stateOf(finished(again)),
        busy === 'verifying' || busy === 'discovering' ? 'manageable' : busy === 'deploying' ? 'active' : 'available',
      )
    })

    test(`that is aborted while ${busy} keeps the reason, and can be asked again`, () => {
      const node = when(nodeAt(busy), 'abort', { reason: 'wrong rack' })
      assert.deepEqual([node.facts.failure?.code, node.facts.failure?.reason], ['aborted', 'wrong rack'])
      assert.equal(node.work, null)
      assert.equal(stateOf(when(node, 'retry')), busy)
    })
  }

  test('has a deadline on every step of every plan', () => {
    for (const busy of BUSY) {
      for (const step of nodeAt(busy).work?.plan ?? []) assert.ok(step.deadline_s > 0, `${busy}: ${step.step}`)
      assert.notEqual(nodeAt(busy).work?.plan.length, 0, busy)
    }
  })

  test('has an instance from the deployment on until it is clean again', () => {
    const withInstance = Object.keys(lifeStates).filter((state) => /deploy|active/.test(state))
    for (const state of [
      'enrolled',
      'verifying',
      'manageable',
      'burning-in',
      'available',
      'deploying',
      'active',
      'undeploying',
    ]) {
      assert.equal(nodeAt(state).facts.instance !== null, withInstance.includes(state), state)
    }
    assert.ok(broken(nodeAt('deploying')).facts.instance)
    assert.ok(broken(nodeAt('undeploying')).facts.instance)
    const cleaning = finished(when(broken(nodeAt('deploying')), 'clean'))
    assert.deepEqual([stateOf(cleaning), cleaning.facts.instance], ['available', null])
  })

  test('asks in a retry for what was asked: the same image, the same thoroughness, the same goal', () => {
    const deploy = {
      ...BODIES.deploy,
      config_drive: { meta_data: { role: 'web' } },
      ready: { rule: 'stays-on', settle_s: 5 },
    }
    const [first] = proposed(nodeAt('available'), 'deploy', deploy as never)
    const failed = broken(then(nodeAt('available'), [first as NodeEvent]))
    assert.deepEqual(proposed(failed, 'retry'), [first])
    const provided = broken(when(nodeAt('manageable'), 'provide', { burn_in: 'never', erase: 'full' }))
    assert.equal(stateOf(provided), 'clean-failed')
    const [again] = proposed(provided, 'retry')
    assert.deepEqual(
      [again?.type, (again?.data as { erase?: string } | undefined)?.erase],
      ['CleaningRequested', 'full'],
    )
    assert.equal(stateOf(finished(when(provided, 'retry'))), 'available')
    const cleaned = broken(when(nodeAt('manageable'), 'clean'))
    assert.equal(stateOf(finished(when(cleaned, 'retry'))), 'manageable')
  })

  test('burns in again only when its hardware changed since it passed', () => {
    const begun = (node: Node, body = {}) => stateOf(when(node, 'provide', body))
    const once = finished(when(finished(nodeAt('discovering')), 'burn-in'))
    assert.equal(begun(once), 'cleaning')
    assert.equal(begun(once, { burn_in: 'always' }), 'burning-in')
    const looked = finished(when(once, 'discover'))
    assert.equal(begun(looked), 'cleaning')
    const discovered = onward(finishedBut(when(once, 'discover'))) as Extract<NodeEvent, { type: 'DiscoverySucceeded' }>
    const more = { ...discovered.data, changes: [{ what: 'memory_mib', before: '2048', after: '1024' }] }
    const changed = evolve(finishedBut(when(once, 'discover')), { type: 'DiscoverySucceeded', data: more }, AT)
    assert.equal(begun(changed), 'burning-in')
  })

  test('switches its power beside its life, but not while it is being worked on', () => {
    for (const state of ['enrolled', 'manageable', 'available', 'active']) {
      const switching = when(nodeAt(state), 'power')
      assert.deepEqual([stateOf(switching), switching.work?.effect], [state, 'switch-power'])
      assert.deepEqual(allowedCommands(switching).sort(), ['abort', 'set-maintenance'])
      assert.equal(stateOf(finished(switching)), state)
    }
    for (const busy of BUSY) {
      assert.equal(isAllowed(nodeAt(busy), 'power'), false)
      assert.match(whyNot(nodeAt(busy), 'power'), new RegExp(`${busy} since .*at step 1 of`))
    }
  })

  test('keeps the failure of its life while its power fails too, and drops that of its power at the next try', () => {
    const failed = broken(nodeAt('deploying'))
    for (const end of [broken, (node: Node) => when(node, 'abort')]) {
      assert.deepEqual(end(when(failed, 'power')).facts.failure, failed.facts.failure)
      const active = end(when(nodeAt('active'), 'power'))
      assert.ok(active.facts.failure)
      assert.equal(finished(when(active, 'power')).facts.failure, null)
    }
    assert.deepEqual(finished(when(failed, 'power')).facts.failure, failed.facts.failure)
  })

  test('in maintenance starts no phase of its life, finishes what runs, and obeys power commands', () => {
    const held = when(nodeAt('available'), 'set-maintenance')
    const allowed = ['clear-maintenance', 'forget', 'power', 'rename', 'update']
    assert.deepEqual(allowedCommands(held).sort(), allowed)
    assert.match(whyNot(held, 'deploy'), /in maintenance since .*a disk is replaced/)
    assert.equal(stateOf(finished(when(nodeAt('deploying'), 'set-maintenance'))), 'active')
    const stopped = when(nodeAt('deploying'), 'set-maintenance', { reason: 'smoke', running: 'abort' })
    assert.deepEqual(
      [stateOf(stopped), stopped.work, stopped.facts.failure?.reason],
      ['deploy-failed', null, 'maintenance: smoke'],
    )
    assert.ok(isAllowed(when(held, 'clear-maintenance'), 'deploy'))
  })

  test('is forgotten only when no tenant is or may be on it, and then takes nothing any more', () => {
    for (const state of ['deploying', 'active', 'undeploying', 'cleaning'])
      assert.equal(isAllowed(nodeAt(state), 'forget'), false, state)
    assert.equal(isAllowed(broken(nodeAt('deploying')), 'forget'), false)
    assert.equal(isAllowed(broken(nodeAt('undeploying')), 'forget'), false)
    const gone = when(nodeAt('available'), 'forget')
    assert.deepEqual(allowedCommands(gone), [])
    for (const name of Object.keys(commands) as CommandName[]) assert.match(whyNot(gone, name), /forgotten/)
    refuses(gone, { type: 'BmcLost', data: { code: 'no-answer', reason: '' } })
  })

  test('says of every command that it refuses why', () => {
    for (const state of Object.keys(lifeStates).filter((name) => !/unknown|forgotten|failed/.test(name))) {
      const node = nodeAt(state)
      for (const name of Object.keys(commands) as CommandName[]) {
        if (!isAllowed(node, name)) assert.match(whyNot(node, name), /.{15}/, `${state}: ${name}`)
      }
    }
  })
})

/** All steps done, the phase not yet said to be. */
const finishedBut = (node: Node): Node => {
  let state = node
  while (state.work && state.work.cursor < state.work.plan.length) state = evolve(state, onward(state), AT)
  return state
}
