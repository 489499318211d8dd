/** Nodes beside each other: names and MACs that only one may have, power that changes by itself, nodes that go. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { pino } from 'pino'
import { stateOf } from '../../machines/node/machine.ts'
import { readConfig } from '../../src/config.ts'
import { startService } from '../../src/service.ts'
import { embeddedStore } from '../../src/store/embedded.ts'
import { NO_STREAM } from '../../src/store/port.ts'
import { openVault } from '../../src/vault.ts'
import { masterKeyFrom } from '../../src/vault-key.ts'
import { dyingStore } from '../support/dying-store.ts'
import { IMAGE } from '../support/image.ts'
import { bloomery, nodeThatIs, problemOf, temporaryDirectory, typesOf } from '../support/service.ts'
import { HARDWARE, playScene } from '../support/stage.ts'

const MAC = '52:54:00:12:34:56'

suite('names and MACs', { timeout: 60_000 }, () => {
  test('belong to one node: a second is told which', async (t) => {
    const { enroll, post, get } = await bloomery(t)
    const id = await enroll('n1', { ports: [MAC] })
    const named = problemOf(await post('/v1/nodes', { name: 'n1', driver: 'fake' }), 409, 'taken')
    assert.deepEqual([named['field'], named['node'], named.detail], ['name', id, 'name n1 belongs to node n1'])
    const wired = { name: 'n2', driver: 'fake', ports: ['52-54-00-12-34-56'.toUpperCase()] }
    const taken = problemOf(await post('/v1/nodes', wired), 409, 'taken')
    assert.deepEqual([taken['field'], taken['node'], taken.detail], ['ports', id, `MAC ${MAC} belongs to node n1`])
    assert.equal((await get('/v1/nodes')).body.nodes.length, 1)
    // What the refused enrolment had claimed already is free again.
    await enroll('n2', { ports: ['52:54:00:12:34:57'] })
  })

  test('asked for by two at once go to exactly one', async (t) => {
    const { post, get } = await bloomery(t)
    for (let round = 0; round < 10; round++) {
      const body = { name: `race-${round}`, driver: 'fake' }
      const answers = await Promise.all(Array.from({ length: 4 }, () => post('/v1/nodes', body)))
      assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409, 409, 409])
    }
    assert.equal((await get('/v1/nodes')).body.nodes.length, 10)
  })

  test('are free again when the node is forgotten, and its secrets are gone', async (t) => {
    const service = await bloomery(t)
    const { enroll, order, get, restart } = service
    const first = await enroll('n1', { ports: [MAC], bmc: { password: 'old secret' } })
    await order(first, 'forget', { reason: 'sold' })
    assert.equal((await get('/v1/nodes/n1')).status, 404)
    assert.equal((await get(`/v1/nodes/${first}`)).body.state, 'forgotten')
    const second = await enroll('n1', { ports: [MAC], bmc: { password: 'new secret' } })
    assert.notEqual(first, second)
    const next = await restart()
    assert.equal((await next.get('/v1/nodes/n1')).body.id, second)
    await next.close()
    const vault = openVault({
      path: join(service.dir, 'vault.db'),
      masterKey: masterKeyFrom({ file: join(service.dir, 'master.key') }),
    })
    t.after(() => vault.close())
    assert.throws(() => vault.get(first, 'bmc'), /were destroyed/)
    assert.deepEqual(vault.get(second, 'bmc')?.value, { password: 'new secret' })
  })

  test('of a node forgotten just before the service died lose their secrets when it is back', async (t) => {
    const dir = temporaryDirectory(t)
    // Two appends enroll the node; the third forgets it.
    const store = dyingStore(embeddedStore({ path: join(dir, 'events.db') }), 3, 'kept')
    const service = await bloomery(t, { dir, parts: { store } })
    const id = await service.enroll('n1', { bmc: { password: 'old secret' } })
    assert.equal((await service.post(`/v1/nodes/${id}/forget`)).status, 503)
    const next = await service.restart()
    assert.equal(stateOf(next.node(id)), 'forgotten')
    await next.close()
    const vault = openVault({
      path: join(dir, 'vault.db'),
      masterKey: masterKeyFrom({ file: join(dir, 'master.key') }),
    })
    t.after(() => vault.close())
    assert.throws(() => vault.get(id, 'bmc'), /were destroyed/)
  })

  test('follow a rename, and a change of ports', async (t) => {
    const { enroll, order, get, post, call } = await bloomery(t)
    const id = await enroll('n1', { ports: [MAC] })
    const other = await enroll('n2')
    problemOf(await post(`/v1/nodes/n1/rename`, { name: 'n2' }), 409, 'taken')
    await order(id, 'rename', { name: 'n3' })
    assert.equal((await get('/v1/nodes/n3')).body.id, id)
    assert.equal((await get('/v1/nodes/n1')).status, 404)
    problemOf(await call('PATCH', '/v1/nodes/n2', { ports: [MAC] }), 409, 'taken')
    const ports = ['52:54:00:00:00:01', '52:54:00:00:00:02']
    await order(other, 'update', { ports })
    assert.deepEqual(
      (await get('/v1/nodes/n2/ports')).body.ports.map(({ mac }: { mac: string }) => mac),
      ports,
    )
  })
})

suite('a quiet node', { timeout: 60_000 }, () => {
  test('whose power or BMC changes under our hands has it recorded once, and not corrected', async (t) => {
    const service = await bloomery(t, { env: { BLOOMERY_POWER_POLL_S: '0.02' } })
    const scene = playScene('watched')
    const id = await nodeThatIs(service, 'manageable', { driver: 'stage', bmc: { address: 'watched' } })
    await service.untilEvent(id, 'PowerObserved', ({ power }: { power: string }) => power === 'off')
    scene.chassis = 'on'
    await service.untilEvent(id, 'PowerObserved', ({ power }: { power: string }) => power === 'on')
    scene.chassis = 'silent'
    await service.untilEvent(id, 'BmcLost')
    const shown = (await service.get(`/v1/nodes/${id}`)).body
    assert.deepEqual([shown.power.observed, shown.bmc.lost.reason], ['on', 'the BMC on stage is silent'])
    scene.chassis = 'on'
    await service.untilEvent(id, 'BmcRegained')
    scene.chassis = 'off'
    await service.wait('off', () => service.node(id).facts.power === 'off')
    const polled = service.eventsOf(id).filter(({ meta }) => meta.actor.kind === 'poll')
    assert.deepEqual(typesOf(polled), ['PowerObserved', 'PowerObserved', 'BmcLost', 'BmcRegained', 'PowerObserved'])
    assert.deepEqual(scene.asked, [])
  })
})

suite('a node in maintenance', { timeout: 60_000 }, () => {
  test('finishes what runs, begins nothing, obeys power commands, and is itself again afterwards', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('held')
    const id = await nodeThatIs(service, 'available', { driver: 'stage', bmc: { address: 'held' } })
    const begun = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    scene.act = async () => {
      begun.resolve()
      await go.promise
      return {}
    }
    await service.order(id, 'deploy', IMAGE)
    await begun.promise
    await service.order(id, 'set-maintenance', { reason: 'a fan is replaced' })
    go.resolve()
    await service.until(id, 'active')
    const refused = problemOf(await service.post(`/v1/nodes/${id}/undeploy`), 409, 'wrong-state')
    assert.match(refused.detail, /in maintenance since .*: a fan is replaced/)
    await service.order(id, 'power', { action: 'on' })
    await service.untilEvent(id, 'PowerSucceeded')
    assert.equal(scene.chassis, 'on')
    await service.order(id, 'clear-maintenance')
    scene.act = async () => ({ hardware: HARDWARE })
    await service.order(id, 'undeploy')
    await service.until(id, 'available')
  })

  test('aborts what runs when it is asked to', async (t) => {
    const service = await bloomery(t)
    const scene = playScene('smoke')
    const id = await nodeThatIs(service, 'available', { driver: 'stage', bmc: { address: 'smoke' } })
    const begun = Promise.withResolvers<void>()
    scene.act = (job) => {
      begun.resolve()
      return new Promise((_, reject) => job.signal.addEventListener('abort', () => reject(job.signal.reason)))
    }
    await service.order(id, 'deploy', IMAGE)
    await begun.promise
    await service.order(id, 'set-maintenance', { reason: 'smoke', running: 'abort' })
    assert.equal((await service.until(id, 'deploy-failed')).facts.failure?.reason, 'maintenance: smoke')
    assert.deepEqual(typesOf(service.eventsOf(id)).slice(-2), ['AttemptAborted', 'MaintenanceSet'])
    problemOf(await service.post(`/v1/nodes/${id}/retry`), 409, 'wrong-state')
  })
})

suite('the service', { timeout: 60_000 }, () => {
  test('does not start on a history that it has no word for, says where, and ends all the same', async (t) => {
    const dir = temporaryDirectory(t)
    const store = embeddedStore({ path: join(dir, 'events.db') })
    const meta = { actor: { kind: 'operator', name: 'x' } }
    const id = randomUUID()
    const event = { id: randomUUID(), type: 'NodePainted', at: new Date().toISOString(), data: { color: 'red' }, meta }
    await store.append(`node-${id}`, NO_STREAM, [event])
    await store.close()
    const config = readConfig({ BLOOMERY_API: '127.0.0.1:0', BLOOMERY_DATA: dir })
    const service = await startService(config, pino({ level: 'silent' }))
    t.after(() => service.close())
    await assert.rejects(service.ready, new RegExp(`node-${id} revision 0: no schema for NodePainted`))
    await assert.rejects(service.failed, /NodePainted/)
  })

  test('ends while requests and work are under way, and loses nothing that it answered', async (t) => {
    const service = await bloomery(t)
    const ids = await Promise.all(Array.from({ length: 20 }, (_, i) => service.enroll(`n${i}`)))
    const answers = await Promise.all(ids.map((id) => service.post(`/v1/nodes/${id}/verify`)))
    const more = ids.map((id) =>
      service.post(`/v1/nodes/${id}/rename`, { name: `x-${id.slice(-12)}` }).catch(() => null),
    )
    const next = await service.restart()
    await Promise.all(more)
    for (const [i, id] of ids.entries()) {
      assert.ok(next.node(id).revision >= answers[i]?.body.revision)
      await next.until(id, 'manageable')
    }
  })

  test('never lets a secret out: not in an answer, an event, a line of its log, or a file', async (t) => {
    const password = `canary-${randomUUID()}`
    const user_data = `canary-${randomUUID()}`
    const service = await bloomery(t, { env: { BLOOMERY_LOG: 'trace' } })
    const told: unknown[] = []
    const ask = async (...asked: Parameters<typeof service.call>) => told.push(await service.call(...asked))
    const id = await nodeThatIs(service, 'available', { bmc: { password, failures: { 'deploy.write': 1 } } })
    const deploy = { ...IMAGE, config_drive: { user_data, meta_data: { role: 'web' } } }
    await service.order(id, 'deploy', deploy)
    await service.until(id, 'deploy-failed')
    await service.order(id, 'retry')
    await service.until(id, 'active')
    await ask('PATCH', `/v1/nodes/${id}`, { bmc: { password: `${password}-2` } })
    await ask('PATCH', `/v1/nodes/${id}`, { bmc: { pasword: 1, password } })
    await ask('POST', '/v1/nodes', `{"name":"n2","driver":"fake","bmc":{"password":"${password}"}`)
    await ask('POST', '/v1/nodes', `{"bmc":{"password": ${password}}}`)
    await ask('POST', '/v1/nodes', { name: 'n2', driver: 'stage', bmc: { address: 'x', password, hint: 'y' } })
    for (const part of ['', '/history', '/inventory', '/burn-in', '/ports']) await ask('GET', `/v1/nodes/${id}${part}`)
    for (const path of ['/v1/nodes', '/v1/drivers', '/v1/lifecycle', '/readyz']) await ask('GET', path)
    await service.restart()
    const files = readdirSync(service.dir, { recursive: true, encoding: 'utf8' })
      .map((name) => join(service.dir, name))
      .filter((path) => statSync(path).isFile())
    assert.ok(files.some((path) => path.endsWith('events.db')) && files.some((path) => path.endsWith('vault.db')))
    const places: [string, string][] = [
      ['answers', JSON.stringify(told)],
      ['events', JSON.stringify(service.seen)],
      ['log', service.log.join('\n')],
      ...files.map((path): [string, string] => [path, readFileSync(path, 'latin1')]),
    ]
    for (const [place, text] of places) {
      for (const secret of [password, user_data]) assert.ok(!text.includes(secret), `a secret is in ${place}`)
    }
  })
})
