/** Work on a node: how it fails, is aborted, runs out of time, waits its turn, and is taken up again. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { stateOf } from '../../machines/node/machine.ts'
import type { Job } from '../../src/effects/job.ts'
import { embeddedStore } from '../../src/store/embedded.ts'
import { StoreUnavailable } from '../../src/store/port.ts'
import { IMAGE } from '../support/image.ts'
import { bloomery, nodeThatIs, problemOf, temporaryDirectory, typesOf } from '../support/service.ts'
import { aStep, HARDWARE, playScene, type Scene } from '../support/stage.ts'

/** Holds a step until the test lets it go, or it is aborted. */
const held = () => {
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

  test('waits its turn: so many at once and no more, first come first served', async (t) => {
    const service = await bloomery(t, { env: { BLOOMERY_LANES: 'deploy=2' } })
    const names = Array.from({ length: 10 }, (_, i) => `lane-${i}`)
    const order: string[] = []
    let writing = 0
    let most = 0
    const ids: string[] = []
    for (const name of names) {
      const scene = playScene(name)
      ids.push(await nodeThatIs(service, 'available', { name, ...onStage(name) }))
      scene.act = async () => {
        order.push(name)
        most = Math.max(most, ++writing)
        // Long enough for a third to begin, if it could.
        for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
        writing--
        return {}
      }
    }
    for (const id of ids) await service.order(id, 'deploy', IMAGE)
    await Promise.all(ids.map((id) => service.until(id, 'active')))
    assert.equal(most, 2)
    assert.deepEqual(order, names)
  })

  test('of one phase does not hold up a power command, and a place is given up by an abort', async (t) => {
    const service = await bloomery(t, { env: { BLOOMERY_LANES: 'deploy=1' } })
    const first = held()
    const scenes = ['q-1', 'q-2', 'q-3'].map((name) => playScene(name))
    const [a = '', b = '', c = ''] = await Promise.all(
      ['q-1', 'q-2', 'q-3'].map((name) => nodeThatIs(service, 'available', { name, ...onStage(name) })),
    )
    for (const scene of scenes) scene.act = async () => ({})
    ;(scenes[0] as Scene).act = first.act
    await service.order(a, 'deploy', IMAGE)
    await first.begun
    await service.order(b, 'deploy', IMAGE)
    assert.equal((await service.get(`/v1/nodes/${b}`)).body.live.queued, true)
    await service.order(c, 'power', { action: 'on' })
    await service.untilEvent(c, 'PowerSucceeded')
    await service.order(c, 'deploy', IMAGE)
    await service.order(b, 'abort')
    await service.until(b, 'deploy-failed')
    first.letGo()
    await service.until(c, 'active')
    assert.equal(
      service
        .eventsOf(b)
        .filter(({ type }) => type === 'StepStarted')
        .at(-1)?.type,
      'StepStarted',
    )
    assert.deepEqual(typesOf(service.eventsOf(b)).slice(-2), ['DeploymentRequested', 'AttemptAborted'])
  })

  test('does not begin while the log cannot be written, and goes on when it can again', async (t) => {
    const dir = temporaryDirectory(t)
    const inner = embeddedStore({ path: join(dir, 'events.db') })
    let isFull = false
    const full = Promise.withResolvers<void>()
    const store = {
      ...inner,
      async append(...asked: Parameters<typeof inner.append>) {
        if (!isFull) return inner.append(...asked)
        full.resolve()
        throw new StoreUnavailable('cannot write the log: no space left on device')
      },
    }
    const service = await bloomery(t, { dir, parts: { store } })
    const scene = playScene('full')
    const id = await nodeThatIs(service, 'available', onStage('full'))
    const steps: number[] = []
    scene.plan = () => [aStep('stage.act', 60), aStep('stage.act', 60)]
    scene.act = async ({ index }) => {
      steps.push(index)
      if (index === 0) isFull = true
      return {}
    }
    await service.order(id, 'deploy', IMAGE)
    await full.promise
    assert.deepEqual(steps, [0])
    const answer = await service.post('/v1/nodes', { name: 'n2', driver: 'fake' })
    problemOf(answer, 503, 'unavailable')
    assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/)
    assert.deepEqual(steps, [0])
    isFull = false
    await service.until(id, 'active')
    assert.deepEqual(steps, [0, 1])
  })
})
