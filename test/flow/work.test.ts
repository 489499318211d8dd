/** Work on a node: how it fails, is aborted, runs out of time, and is taken up again. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { stateOf } from '../../machines/node/machine.ts'
import { IMAGE } from '../support/image.ts'
import { bloomery, nodeThatIs, problemOf } from '../support/service.ts'
import { aStep, held, playScene } from '../support/stage.ts'

const onStage = (address: string) => ({ driver: 'stage', bmc: { address } })

/** A step that fails once, the command that comes to it, the state it leaves, and where a retry leads. */
const FAILING = [
  ['inspect.collect', 'discover', 'discovery-failed', 'manageable'],
  ['burn-in.memory', 'provide', 'burn-in-failed', null],
  ['clean.wipe', 'retry', 'clean-failed', 'available'],
  ['deploy.write', 'deploy', 'deploy-failed', 'deploy-failed'],
] as const

suite('work on a node', { timeout: 60_000 }, () => {
  test('that fails says which step and why, and goes on from a retry', async (t) => {
    const { enroll, order, until, node, eventsOf } = await bloomery(t)
    const failures = { 'inspect.collect': 1, 'burn-in.memory': 1, 'clean.wipe': 1, 'deploy.write': 1, 'boot.tenant': 1 }
    const id = await enroll('n1', { bmc: { failures } })
    await order(id, 'verify')
    await until(id, 'manageable')
    for (const [step, command, failed, after] of FAILING) {
      await order(id, command, command === 'deploy' ? IMAGE : {})
      const { facts } = await until(id, failed)
      const reason = `${step} was told to fail`
      assert.deepEqual([facts.failure?.step, facts.failure?.code, facts.failure?.reason], [step, 'pretended', reason])
      if (after === null) continue
      await order(id, 'retry')
      await until(id, after)
      if (after !== 'deploy-failed') assert.equal(node(id).facts.failure, null)
    }
    assert.equal(node(id).facts.failure?.step, 'boot.tenant')
    await order(id, 'retry')
    assert.equal((await until(id, 'active')).facts.failure, null)
    const failed = eventsOf(id).filter(({ type }) => type === 'StepFailed')
    assert.equal(failed.length, 5)
  })

  test('that is aborted ends at once, in the failed state, and goes on from a retry', async (t) => {
    const service = await bloomery(t)
    const first = held()
    const scene = playScene('abort-1')
    const id = await nodeThatIs(service, 'available', onStage('abort-1'))
    scene.act = first.act
    await service.order(id, 'deploy', IMAGE)
    const job = await first.begun
    const refused = problemOf(await service.post(`/v1/nodes/${id}/power`, { action: 'off' }), 409, 'wrong-state')
    assert.match(
      refused.detail,
      /the node is deploying since .*, at step 1 of 1 \(stage\.act\); wait for it to end, or abort it/,
    )
    assert.deepEqual(refused['allowed_commands'], ['abort', 'set-maintenance'])
    await service.order(id, 'abort', { reason: 'wrong image' })
    const { facts } = await service.until(id, 'deploy-failed')
    assert.deepEqual(
      [facts.failure?.code, facts.failure?.reason, facts.failure?.step],
      ['aborted', 'wrong image', 'stage.act'],
    )
    assert.ok(job.signal.aborted)
    scene.act = async () => ({})
    await service.order(id, 'retry')
    await service.until(id, 'active')
    assert.equal(service.eventsOf(id).filter(({ type }) => type === 'StepFailed').length, 0)
    assert.deepEqual(scene.asked, [])
  })

  test('never has two attempts at once: the next begins when the one that was aborted has ended', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('abort-2')
    const id = await nodeThatIs(service, 'available', onStage('abort-2'))
    const slow = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    let running = 0
    scene.act = async () => {
      assert.equal(++running, 1)
      begun.resolve()
      // It does not heed its signal: the worst that a step can be.
      await slow.promise
      running--
      return {}
    }
    const attempt = await service.order(id, 'deploy', IMAGE)
    await begun.promise
    await service.order(id, 'abort')
    await service.order(id, 'retry')
    assert.equal(running, 1)
    slow.resolve()
    await service.until(id, 'active')
    const ended = service
      .eventsOf(id)
      .filter(({ type, data }) => type === 'StepSucceeded' && 'attempt' in data && data.attempt === attempt)
    assert.deepEqual(ended, [])
  })

  test('that runs out of time fails, and names what it was waiting for', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('late')
    const id = await nodeThatIs(service, 'manageable', onStage('late'))
    scene.plan = () => [aStep('stage.act', 0.05)]
    scene.act = (job) => {
      job.waitFor('the moon to rise')
      return new Promise((_, reject) => job.signal.addEventListener('abort', () => reject(job.signal.reason)))
    }
    await service.order(id, 'discover')
    const { facts } = await service.until(id, 'discovery-failed')
    assert.equal(facts.failure?.code, 'deadline')
    assert.equal(facts.failure?.reason, 'not done within 0.05 s of its start; it was waiting for the moon to rise')
  })

  test('whose time ran out while the service was away is not begun again', async (t) => {
    const service = await bloomery(t)
    const first = held()
    const scene = playScene('away')
    const id = await nodeThatIs(service, 'manageable', onStage('away'))
    scene.plan = () => [aStep('stage.act', 60)]
    scene.act = first.act
    await service.order(id, 'discover')
    await first.begun
    scene.act = () => assert.fail('begun again')
    const later = { now: () => new Date(Date.now() + 61_000), sleep: async () => {} }
    const second = await service.restart({ parts: { clock: later } })
    const { facts } = await second.until(id, 'discovery-failed')
    assert.equal(facts.failure?.code, 'deadline')
  })

  test('that was under way when the service ended is taken up at its step, and counted', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('again')
    const id = await nodeThatIs(service, 'available', onStage('again'))
    scene.plan = () => [aStep('stage.act', 60, { part: 1 }), aStep('stage.act', 60, { part: 2 })]
    const second = held()
    const done: unknown[] = []
    scene.act = async (job) => {
      if (job.index === 1) return second.act(job)
      done.push(job.step.args['part'])
      return {}
    }
    await service.order(id, 'deploy', IMAGE)
    await second.begun
    scene.act = async (job) => {
      done.push([job.step.args['part'], job.run])
      return {}
    }
    const next = await service.restart()
    await next.until(id, 'active')
    assert.deepEqual(done, [1, [2, 2]])
  })

  test('that may not be repeated has an unknown outcome when the service ended in the middle of it', async (t) => {
    const service = await bloomery(t)
    const first = held()
    const scene = playScene('once')
    const id = await nodeThatIs(service, 'manageable', onStage('once'))
    scene.plan = () => [aStep('stage.once', 60)]
    scene.act = first.act
    await service.order(id, 'power', { action: 'reset' })
    await first.begun
    scene.act = () => assert.fail('done twice')
    const second = await service.restart()
    await second.wait('the end of it', () => second.node(id).work === null)
    assert.equal(second.node(id).facts.failure?.code, 'outcome-unknown')
    assert.equal(stateOf(second.node(id)), 'manageable')
  })

  test('is not begun by reading history: a node at rest is left alone', async (t) => {
    const service = await bloomery(t)
    const state_file = join(service.dir, 'hardware.jsonl')
    const id = await nodeThatIs(service, 'active', { bmc: { state_file } })
    const before = readFileSync(state_file, 'utf8')
    const { revision } = service.node(id)
    const second = await service.restart()
    await second.close()
    assert.equal(readFileSync(state_file, 'utf8'), before)
    assert.equal(second.node(id).revision, revision)
  })

  for (const [what, evidence] of [
    ['too large for an event', { text: 'x'.repeat(70_000) }],
    ['no JSON', { when: new Date(0) }],
  ] as const) {
    test(`whose evidence is ${what} fails once, instead of being done again and again`, async (t) => {
      const service = await bloomery(t)
      const scene = playScene('talkative')
      const id = await nodeThatIs(service, 'available', onStage('talkative'))
      let times = 0
      scene.act = async () => {
        if (++times > 3) assert.fail('done again and again')
        return evidence as never
      }
      await service.order(id, 'deploy', IMAGE)
      const { facts } = await service.until(id, 'deploy-failed')
      assert.equal(times, 1)
      assert.equal(facts.failure?.code, 'unrecordable')
    })
  }

  test('whose steps found not what the phase is for fails, instead of being concluded again and again', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('blind')
    const id = await nodeThatIs(service, 'manageable', onStage('blind'))
    scene.act = async () => ({})
    await service.order(id, 'discover')
    const { facts } = await service.until(id, 'discovery-failed')
    assert.equal(facts.failure?.code, 'unrecordable')
  })
})
