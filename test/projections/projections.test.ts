/** Projections: what a history, a burn-in report and an inventory tell, given the events of a node. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { evolve, type Node, type NodeEvent, type RecordedNodeEvent } from '../../machines/node/machine.ts'
import { burnInReports } from '../../projections/burn-in-report.ts'
import { history } from '../../projections/history.ts'
import { inventories } from '../../projections/inventory.ts'
import { nodeView } from '../../projections/node-view.ts'
import { beginning, ENROLLED, given, onward, proposed } from '../support/node-builder.ts'

const START_MS = Date.parse('2026-01-01T00:00:00.000Z')

/** A log in which each event is a second after the one before. */
const told = () => {
  const recorded: RecordedNodeEvent[] = []
  let node: Node | undefined
  const record = (...events: readonly NodeEvent[]) => {
    for (const event of events) {
      const revision = recorded.length
      const at = new Date(START_MS + revision * 1000).toISOString()
      node = node ? evolve(node, event, at) : given(event)
      const meta = { actor: { kind: 'operator' as const, name: 'ada' }, machine: 1 }
      recorded.push({
        ...event,
        id: `e${revision}`,
        stream: 'node-1',
        revision,
        position: String(revision + 1),
        at,
        meta,
      })
    }
  }
  const now = () => node as Node
  const finish = () => {
    while (now().work) record(onward(now()))
  }
  record(ENROLLED)
  return { recorded, record, finish, now }
}

suite('a history', () => {
  test('tells where each event led, and how long the step or the phase that it ended had taken', () => {
    const { recorded, record, finish, now } = told()
    record(...proposed(now(), 'verify'))
    finish()
    assert.deepEqual(
      history(recorded).map(({ type, state, duration_ms }) => [type, state, duration_ms]),
      [
        ['NodeEnrolled', 'enrolled', null],
        ['VerificationRequested', 'verifying', null],
        ['StepStarted', 'verifying', null],
        ['StepSucceeded', 'verifying', 1000],
        ['VerificationSucceeded', 'manageable', 3000],
      ],
    )
  })
})

suite('a burn-in report', () => {
  test('has each attempt with its steps, also of a step that was begun twice and of an attempt that was aborted', () => {
    const { recorded, record, finish, now } = told()
    record(...proposed(now(), 'verify'))
    finish()
    record(...proposed(now(), 'burn-in', { profile: { cpu: { seconds: 5 }, disk: null, network: null } }))
    record(beginning(now()))
    assert.equal(burnInReports(recorded)[0]?.steps[0]?.result, 'running')
    record(beginning(now()), onward(now()))
    record(...proposed(now(), 'abort', { reason: 'too loud' }))
    record(...proposed(now(), 'retry'))
    finish()
    const [first, second, ...more] = burnInReports(recorded)
    assert.deepEqual(more, [])
    assert.deepEqual([first?.result, first?.reason, first?.requested_by], ['aborted', 'too loud', 'ada'])
    const [cpu, memory] = first?.steps ?? []
    assert.deepEqual([cpu?.step, cpu?.args['seconds'], cpu?.result], ['burn-in.cpu', 5, 'passed'])
    // From the first time that it was begun: the time that a restart cost is part of it.
    assert.equal(Date.parse(cpu?.ended_at ?? '') - Date.parse(cpu?.started_at ?? ''), 2000)
    assert.deepEqual([memory?.result, memory?.started_at], ['waiting', null])
    assert.deepEqual([second?.result, second?.steps.map(({ result }) => result)], ['passed', ['passed', 'passed']])
    assert.ok((second?.attempt ?? 0) > (first?.attempt ?? 0))
  })
})

suite('an inventory', () => {
  test('is there for each time that somebody looked', () => {
    const { recorded, record, finish, now } = told()
    assert.deepEqual(inventories(recorded), [])
    for (const command of ['verify', 'discover', 'discover'] as const) {
      record(...proposed(now(), command))
      finish()
    }
    assert.deepEqual(
      inventories(recorded).map(({ changes }) => changes),
      [[], []],
    )
    assert.equal(inventories(recorded)[0]?.hardware.memory_mib, 2048)
  })
})

suite('a view', () => {
  test('says when the running step is given up, and what of the plan is done', () => {
    const { record, now } = told()
    record(...proposed(now(), 'verify'))
    assert.equal(nodeView('1', now()).work?.deadline_at, null)
    record(beginning(now()))
    const { work } = nodeView('1', now())
    const deadline_s = now().work?.plan[0]?.deadline_s ?? 0
    assert.equal(work?.deadline_at, new Date(START_MS + 2000 + deadline_s * 1000).toISOString())
    assert.deepEqual(work?.plan, [{ step: 'management.info', status: 'running' }])
  })
})
