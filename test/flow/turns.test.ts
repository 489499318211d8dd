/** When work may begin: in its turn, and never while the log cannot be written. */
import assert from 'node:assert/strict'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { embeddedStore } from '../../src/store/embedded.ts'
import { dyingStore } from '../support/dying-store.ts'
import { IMAGE } from '../support/image.ts'
import { refusingStore } from '../support/refusing-store.ts'
import { bloomery, nodeThatIs, problemOf, temporaryDirectory, typesOf } from '../support/service.ts'
import { aStep, held, playScene, type Scene } from '../support/stage.ts'
import { smallDisk } from '../support/store-directory.ts'

const onStage = (address: string) => ({ driver: 'stage', bmc: { address } })

suite('work that is asked for', { timeout: 60_000 }, () => {
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
    const store = refusingStore(embeddedStore({ path: join(dir, 'events.db') }))
    const service = await bloomery(t, { dir, parts: { store } })
    const scene = playScene('full')
    const id = await nodeThatIs(service, 'available', onStage('full'))
    const steps: number[] = []
    scene.plan = () => [aStep('stage.act', 60), aStep('stage.act', 60)]
    scene.act = async ({ index }) => {
      steps.push(index)
      if (index === 0) store.refuse()
      return {}
    }
    await service.order(id, 'deploy', IMAGE)
    await store.refused
    assert.deepEqual(steps, [0])
    const answer = await service.post('/v1/nodes', { name: 'n2', driver: 'fake' })
    problemOf(answer, 503, 'unavailable')
    assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/)
    assert.deepEqual(steps, [0])
    store.accept()
    await service.until(id, 'active')
    assert.deepEqual(steps, [0, 1])
  })

  test('does not fail because what a step saw could not be written at once', async (t) => {
    const dir = temporaryDirectory(t)
    const store = refusingStore(embeddedStore({ path: join(dir, 'events.db') }))
    const service = await bloomery(t, { dir, parts: { store } })
    const scene = playScene('seen')
    const id = await nodeThatIs(service, 'available', onStage('seen'))
    scene.plan = () => [aStep('power.on', 60)]
    scene.bmc.power.state = async () => {
      if (scene.asked.length === 0) store.refuse()
      return 'off'
    }
    await service.order(id, 'deploy', IMAGE)
    await store.refused
    assert.deepEqual(scene.asked, [])
    scene.bmc.power.state = async () => 'on'
    store.accept()
    const { facts } = await service.until(id, 'active')
    assert.equal(facts.power, 'on')
    assert.ok(!typesOf(service.eventsOf(id)).includes('StepFailed'))
  })

  test('is refused while the disk is full, for as long as it is, and nothing of it is there afterwards', async (t) => {
    const dir = smallDisk(t, 4)
    if (!dir) return t.diagnostic('a disk of its own cannot be mounted here')
    const service = await bloomery(t, { dir: join(dir, 'data') })
    const id = await service.enroll('n1')
    const ballast = join(dir, 'ballast')
    fill(ballast)
    const body = { name: 'n2', driver: 'fake', bmc: { password: 'p' } }
    for (const answer of [
      await service.post('/v1/nodes', body),
      await service.post('/v1/nodes/n1/verify'),
      await service.call('PATCH', '/v1/nodes/n1', { bmc: { password: 'x'.repeat(60_000) } }),
    ]) {
      assert.match(problemOf(answer, 503, 'unavailable').detail, /nothing was recorded and nothing was done/)
      assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/)
    }
    assert.equal((await service.get('/v1/nodes/n1')).body.revision, 0)
    rmSync(ballast)
    await service.post('/v1/nodes', body)
    await service.order(id, 'verify')
    await service.until(id, 'manageable')
  })

  test('by a service that died between a claim and its enrolment can be asked for again after a minute', async (t) => {
    const dir = temporaryDirectory(t)
    // The first append is the claim, the second the enrolment.
    const store = dyingStore(embeddedStore({ path: join(dir, 'events.db') }), 2, 'lost')
    const service = await bloomery(t, { dir, parts: { store } })
    problemOf(await service.post('/v1/nodes', { name: 'n1', driver: 'fake' }), 503, 'unavailable')
    const soon = await service.restart()
    problemOf(await soon.post('/v1/nodes', { name: 'n1', driver: 'fake' }), 409, 'taken')
    const later = { now: () => new Date(Date.now() + 61_000), sleep: async () => {} }
    const next = await soon.restart({ parts: { clock: later } })
    await next.enroll('n1')
  })
})

/** Leaves no room at all on the disk. */
const fill = (path: string) => {
  const file = openSync(path, 'w')
  try {
    for (const bytes of [65_536, 4096, 512, 1]) {
      for (;;) {
        try {
          if (writeSync(file, Buffer.alloc(bytes)) < bytes) break
        } catch {
          break
        }
      }
    }
  } finally {
    closeSync(file)
  }
}
