/** Queries over HTTP: lists, a node, its history, its inventory, its burn-ins, and the service itself. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { IMAGE } from '../support/image.ts'
import { bloomery, nodeThatIs, problemOf } from '../support/service.ts'

type Entry = {
  readonly type: string
  readonly state: string
  readonly duration_ms: number | null
  readonly revision: number
}

suite('a query', { timeout: 60_000 }, () => {
  test('for all nodes comes in pages that stay where they are while nodes come and go', async (t) => {
    const { enroll, get, order } = await bloomery(t)
    const ids: string[] = []
    for (let i = 0; i < 7; i++) ids.push(await enroll(`n${i}`))
    const page = async (query: string) => (await get(`/v1/nodes?${query}`)).body
    const first = await page('limit=3')
    assert.deepEqual(
      first.nodes.map(({ id }: { id: string }) => id),
      ids.slice(0, 3),
    )
    await order(ids[1] ?? '', 'forget')
    await order(ids[4] ?? '', 'forget')
    await enroll('n7')
    const second = await page(`limit=3&cursor=${first.next}`)
    const third = await page(`limit=3&cursor=${second.next}`)
    assert.deepEqual(
      [...second.nodes, ...third.nodes].map(({ name }: { name: string }) => name),
      ['n3', 'n5', 'n6', 'n7'],
    )
    assert.equal(third.next, null)
  })

  test('for some nodes is a filter, and a filter that does not exist is refused', async (t) => {
    const service = await bloomery(t)
    const { enroll, get, order } = service
    const a = await nodeThatIs(service, 'manageable', { name: 'rack1-a' })
    const b = await enroll('rack1-b')
    const c = await enroll('rack2-c')
    await order(c, 'set-maintenance', { reason: 'x' })
    await order(await enroll('rack3-d'), 'forget')
    const names = async (query: string) =>
      (await get(`/v1/nodes?${query}`)).body.nodes.map(({ id }: { id: string }) => id)
    assert.deepEqual(await names(''), [a, b, c])
    assert.deepEqual(await names('state=manageable'), [a])
    assert.deepEqual(await names('name=rack1'), [a, b])
    assert.deepEqual(await names('maintenance=true'), [c])
    assert.deepEqual(await names('maintenance=false&name=rack1&state=enrolled'), [b])
    assert.deepEqual(await names('driver=ipmi'), [])
    assert.equal((await names('state=forgotten')).length, 1)
    for (const query of ['colour=red', 'state=asleep', 'limit=0', 'limit=x', 'limit=100000']) {
      assert.ok(problemOf(await get(`/v1/nodes?${query}`), 400, 'invalid').errors?.length, query)
    }
  })

  test('for a node shows what it is at, and what may be asked of it', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'available', { bmc: { delays_ms: { 'deploy.write': 600_000 } } })
    await service.order(id, 'deploy', IMAGE)
    await service.untilEvent(id, 'StepStarted', ({ step }: { step: string }) => step === 'write')
    const { body, headers } = await service.get('/v1/nodes/n1')
    assert.deepEqual(
      [body.state, body.busy, body.work.effect, body.work.step.name],
      ['deploying', true, 'deploy', 'deploy.write'],
    )
    assert.deepEqual(
      body.work.plan.map(({ status }: { status: string }) => status),
      ['running', 'waiting', 'waiting'],
    )
    assert.ok(Date.parse(body.work.deadline_at) > Date.parse(body.work.since))
    assert.deepEqual([body.live.queued, headers.get('etag')], [false, `"${body.revision}"`])
    assert.deepEqual(body.allowed_commands, ['abort', 'set-maintenance'])
    assert.equal(body.instance.image.url, IMAGE.image.url)
    await service.order(id, 'abort')
    const failed = await service.until(id, 'deploy-failed')
    assert.equal(failed.facts.failure?.step, 'deploy.write')
  })

  test('for a history tells each event, where it led, by whom, and how long what it ended had taken', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'active')
    const { events, next } = (await service.get(`/v1/nodes/${id}/history`)).body
    assert.equal(next, null)
    assert.deepEqual(
      events.map(({ revision }: Entry) => revision),
      [...events.keys()],
    )
    assert.equal(events.at(-1).state, 'active')
    for (const { type, duration_ms } of events as Entry[]) {
      assert.equal(/(Succeeded|Failed)$/.test(type), duration_ms !== null, type)
      assert.ok(duration_ms === null || duration_ms >= 0)
    }
    const collected: Entry[] = []
    for (let after: number | null = -1; after !== null; ) {
      const page: { events: Entry[]; next: number | null } = (
        await service.get(`/v1/nodes/${id}/history?limit=4&after=${after}`)
      ).body
      assert.ok(page.events.length <= 4)
      collected.push(...page.events)
      after = page.next
    }
    assert.deepEqual(collected, events)
    problemOf(await service.get(`/v1/nodes/${id}/history?limit=-1`), 400, 'invalid')
  })

  test('for an inventory tells what changed since the time before', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'available')
    assert.equal((await service.get('/v1/nodes/n1/inventory')).body.current.hardware.memory_mib, 16_384)
    await service.call('PATCH', '/v1/nodes/n1', { bmc: { hardware: { memory_mib: 8192 } } })
    await service.order(id, 'discover')
    await service.until(id, 'manageable')
    const { current, earlier } = (await service.get('/v1/nodes/n1/inventory')).body
    const memory = current.changes.filter(({ what }: { what: string }) => what === 'memory_mib')
    assert.deepEqual(memory, [{ what: 'memory_mib', before: '16384', after: '8192' }])
    assert.equal(earlier.length, 1)
  })

  test('for burn-ins tells each attempt and each step, with what it found', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'manageable', { bmc: { failures: { 'burn-in.memory': 1 } } })
    assert.deepEqual((await service.get('/v1/nodes/n1/burn-in')).body.latest, null)
    await service.order(id, 'burn-in', { profile: { disk: null, cpu: { seconds: 3 } } })
    await service.until(id, 'burn-in-failed')
    await service.order(id, 'retry')
    await service.until(id, 'manageable')
    const { latest, earlier } = (await service.get('/v1/nodes/n1/burn-in')).body
    assert.equal(latest.result, 'passed')
    assert.deepEqual(
      latest.steps.map(({ step, result }: { step: string; result: string }) => [step, result]),
      [
        ['burn-in.cpu', 'passed'],
        ['burn-in.memory', 'passed'],
        ['burn-in.network', 'passed'],
      ],
    )
    assert.equal(latest.steps[0].evidence.seconds, 3)
    assert.deepEqual([earlier[0].result, earlier[0].reason], ['failed', 'burn-in.memory was told to fail'])
    assert.deepEqual(
      earlier[0].steps.map(({ result }: { result: string }) => result),
      ['passed', 'failed', 'waiting'],
    )
  })

  test('for the service tells that it lives, is ready, what it can drive, and how a node lives', async (t) => {
    const { get } = await bloomery(t)
    assert.deepEqual((await get('/healthz')).body, { alive: true })
    assert.deepEqual((await get('/readyz')).body, { ready: true, checks: { log: 'ok' } })
    const { drivers } = (await get('/v1/drivers')).body
    const ipmi = drivers.find(({ name }: { name: string }) => name === 'ipmi')
    assert.deepEqual([ipmi.deploy_interfaces, ipmi.secrets], [['iscsi', 'direct'], ['password']])
    assert.ok(ipmi.bmc.properties.cipher_suite)
    assert.equal(ipmi.bmc.properties.password, undefined)
    const lifecycle = (await get('/v1/lifecycle')).body
    assert.ok(lifecycle.regions.life.states.some(({ name }: { name: string }) => name === 'burning-in'))
    assert.ok(lifecycle.commands.every(({ doc }: { doc: string }) => doc.length > 10))
    for (const drawn of [
      await get('/v1/lifecycle?format=mermaid'),
      await get('/v1/lifecycle', { accept: 'text/vnd.mermaid' }),
    ]) {
      assert.match(drawn.body, /^stateDiagram-v2\n/)
    }
  })
})
