/** Commands over HTTP: what is accepted, and every way in which the API says no. */
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { suite, test } from 'node:test'
import { isAllowed } from '../../machines/node/commands.ts'
import { MAX_BODY_BYTES } from '../../src/http/body.ts'
import { IMAGE } from '../support/image.ts'
import { bloomery, nodeThatIs, problemOf } from '../support/service.ts'
import { aStep, playScene } from '../support/stage.ts'

suite('a command', { timeout: 60_000 }, () => {
  test('that enrolls a node is answered with where it is and at which revision', async (t) => {
    const { post, get } = await bloomery(t)
    const body = { name: 'n1', driver: 'fake', metadata: { rack: '7' } }
    const answer = await post('/v1/nodes', body, { from: 'ada@example.org' })
    assert.equal(answer.status, 201)
    const { id, revision } = answer.body
    assert.deepEqual(
      [answer.headers.get('location'), answer.headers.get('etag'), revision],
      [`/v1/nodes/${id}`, '"0"', 0],
    )
    const shown = await get(`/v1/nodes/${id}`)
    assert.deepEqual([shown.body.state, shown.body.metadata], ['enrolled', { rack: '7' }])
    const [enrolled] = (await get(`/v1/nodes/n1/history`)).body.events
    assert.deepEqual(
      [enrolled.actor, enrolled.command],
      [{ kind: 'operator', name: 'ada@example.org' }, answer.body.command],
    )
  })

  test('that is accepted is answered with its id, which all that follows from it names', async (t) => {
    const { enroll, post, until, eventsOf } = await bloomery(t)
    const id = await enroll('n1')
    const { status, body, headers } = await post('/v1/nodes/n1/verify', undefined, { 'if-match': '"0"' })
    assert.deepEqual([status, body.id, headers.get('etag')], [202, id, `"${body.revision}"`])
    await until(id, 'manageable')
    const named = eventsOf(id)
      .slice(1)
      .map(({ meta }) => meta.command)
    assert.deepEqual(new Set(named), new Set([body.command]))
  })

  test('that is no JSON is malformed', async (t) => {
    const { post } = await bloomery(t)
    for (const body of ['{', 'name=n1', '{"name": "n1"']) {
      problemOf(await post('/v1/nodes', body), 400, 'malformed')
    }
    assert.equal(problemOf(await post('/v1/nodes', '{"a":secret}'), 400, 'malformed').detail, 'the body is not JSON')
  })

  test('cannot name a secret of the vault itself', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'available')
    const ref = { name: 'bmc', version: 1 }
    const deploy = await service.post(`/v1/nodes/${id}/deploy`, { ...IMAGE, config_drive_secret: ref })
    assert.equal(problemOf(deploy, 422, 'invalid').errors?.[0]?.field, 'config_drive_secret')
    const update = await service.post(`/v1/nodes/${id}/update`, { credential: ref })
    assert.equal(problemOf(update, 422, 'invalid').errors?.[0]?.field, 'credential')
  })

  test('that is too large is told so, announced or in chunks', async (t) => {
    const { post, url } = await bloomery(t)
    const body = JSON.stringify({ name: 'x'.repeat(MAX_BODY_BYTES) })
    problemOf(await post('/v1/nodes', body), 413, 'too-large')
    const chunked = await new Promise<number | undefined>((resolve, reject) => {
      const sent = request(
        `${url}/v1/nodes`,
        { method: 'POST', headers: { 'transfer-encoding': 'chunked' } },
        (got) => {
          got.resume()
          resolve(got.statusCode)
        },
      )
      sent.on('error', reject)
      sent.end(body)
    })
    assert.equal(chunked, 413)
  })

  test('whose event would be too large for the log, or its secret for the vault, is told so', async (t) => {
    const service = await bloomery(t)
    const id = await nodeThatIs(service, 'available')
    for (const config_drive of [{ meta_data: { text: 'x'.repeat(70_000) } }, { user_data: 'x'.repeat(70_000) }]) {
      const answer = await service.post(`/v1/nodes/${id}/deploy`, { ...IMAGE, config_drive })
      assert.match(problemOf(answer, 413, 'too-large').detail, /65536 bytes/)
    }
    assert.equal((await service.get(`/v1/nodes/${id}`)).body.state, 'available')
  })

  test('with wrong fields is told each of them', async (t) => {
    const { post, enroll, call } = await bloomery(t)
    const answer = await post('/v1/nodes', {
      name: 'N 1',
      driver: 'fake',
      ports: ['52:54'],
      metadata: { a: 1 },
      colour: 'red',
    })
    const { errors = [] } = problemOf(answer, 422, 'invalid')
    assert.deepEqual(errors.map(({ field }) => field).sort(), ['(body)', 'metadata.a', 'name', 'ports.0'])
    assert.match(errors.find(({ field }) => field === 'name')?.detail ?? '', /lower-case letters/)
    assert.match(problemOf(await post('/v1/nodes', []), 422, 'invalid').detail, /expected object/)
    const driver = problemOf(await post('/v1/nodes', { name: 'n1', driver: 'abacus' }), 422, 'invalid')
    assert.match(driver.detail, /driver: one of fake, ipmi, stage, not abacus/)
    const settings = await post('/v1/nodes', { name: 'n1', driver: 'fake', bmc: { delays_ms: { x: -1 } } })
    assert.deepEqual(
      problemOf(settings, 422, 'invalid').errors?.map(({ field }) => field),
      ['bmc.delays_ms.x'],
    )
    await enroll('n1')
    problemOf(await post('/v1/nodes/n1/power', { action: 'toggle' }), 422, 'invalid')
    problemOf(await call('PATCH', '/v1/nodes/n1', {}), 422, 'invalid')
    const face = await call('PATCH', '/v1/nodes/n1', { deploy_interface: 'pigeon' })
    assert.deepEqual(
      problemOf(face, 422, 'invalid').errors?.map(({ field }) => field),
      ['deploy_interface'],
    )
  })

  test('for nobody, or that does not exist, is not found', async (t) => {
    const { post, get, enroll, call } = await bloomery(t)
    await enroll('n1')
    problemOf(await post('/v1/nodes/nobody/verify'), 404, 'not-found')
    problemOf(await get('/v1/nodes/nobody'), 404, 'not-found')
    problemOf(await get('/v1/events?node=nobody'), 404, 'not-found')
    problemOf(await get('/v2/nodes'), 404, 'not-found')
    problemOf(await get(`/v1/blobs/${'0'.repeat(64)}`), 404, 'not-found')
    problemOf(await get('/v1/blobs/..%2f..%2fmaster.key'), 404, 'not-found')
    assert.match(
      problemOf(await post('/v1/nodes/n1/dance'), 404, 'not-found').detail,
      /no command dance; there are: verify, /,
    )
    problemOf(await post('/v1/nodes/n1/constructor'), 404, 'not-found')
    problemOf(await call('DELETE', '/v1/nodes/n1'), 404, 'not-found')
  })

  test('at the wrong time says what the node is, why not, and what may be asked instead', async (t) => {
    const service = await bloomery(t)
    const id = await service.enroll('n1')
    const refused = problemOf(await service.post('/v1/nodes/n1/deploy', IMAGE), 409, 'wrong-state')
    assert.deepEqual([refused['command'], refused['state']], ['deploy', 'enrolled'])
    assert.match(refused.detail, /deploy is taken by a node that is available or deploy-failed; this one is enrolled/)
    const allowed = refused['allowed_commands'] as string[]
    assert.deepEqual(allowed, ['verify', 'rename', 'update', 'power', 'set-maintenance', 'forget'])
    for (const name of allowed) assert.ok(isAllowed(service.node(id), name as never))
    assert.deepEqual((await service.get(`/v1/nodes/${id}`)).body.allowed_commands, allowed)
  })

  test('decided on an old revision is refused, and on the newest one taken', async (t) => {
    const { enroll, call, get } = await bloomery(t)
    await enroll('n1')
    const change = (metadata: object, revision: string) =>
      call('PATCH', '/v1/nodes/n1', { metadata }, { 'if-match': revision })
    const { etag } = Object.fromEntries((await get('/v1/nodes/n1')).headers)
    assert.equal((await change({ a: '1' }, etag ?? '')).status, 202)
    const stale = problemOf(await change({ a: '2' }, etag ?? ''), 412, 'stale')
    assert.equal(stale['revision'], 1)
    problemOf(await change({ a: '2' }, 'W/"0"'), 400, 'malformed')
    assert.equal((await change({ a: '3' }, '*')).status, 202)
    assert.deepEqual((await get('/v1/nodes/n1')).body.metadata, { a: '3' })
  })

  test('of two that were decided on the same revision at once, one wins', async (t) => {
    const { enroll, call } = await bloomery(t)
    await enroll('n1')
    const answers = await Promise.all(
      [1, 2, 3, 4].map((n) => call('PATCH', '/v1/nodes/n1', { metadata: { n: String(n) } }, { 'if-match': '"0"' })),
    )
    assert.deepEqual(answers.map(({ status }) => status).sort(), [202, 412, 412, 412])
  })

  test('that changes settings leaves the others, and its secrets in the vault', async (t) => {
    const { enroll, call, get } = await bloomery(t)
    await enroll('n1', { bmc: { address: 'a', password: 'p1' }, metadata: { rack: '7' } })
    const before = (await get('/v1/nodes/n1')).body
    await call('PATCH', '/v1/nodes/n1', { bmc: { address: 'b' } })
    const after = (await get('/v1/nodes/n1')).body
    assert.equal(after.bmc.settings.address, 'b')
    assert.deepEqual([after.bmc.credential, after.metadata], [before.bmc.credential, { rack: '7' }])
    await call('PATCH', '/v1/nodes/n1', { bmc: { password: 'p2' } })
    assert.equal((await get('/v1/nodes/n1')).body.bmc.credential.version, 2)
  })

  test('whose plan the driver cannot make is told what is missing, and nothing is recorded', async (t) => {
    const { post, get, enroll, order, until } = await bloomery(t)
    playScene('plain', { plan: () => [aStep('stage.act', 60)] })
    const id = await enroll('n1', { driver: 'stage', bmc: { address: 'plain' } })
    await order(id, 'verify')
    await until(id, 'manageable')
    const body = { name: 'n2', driver: 'ipmi', bmc: { address: '127.0.0.1', username: 'u' } }
    const secretless = problemOf(await post('/v1/nodes', body), 422, 'invalid')
    assert.deepEqual(
      secretless.errors?.map(({ field }) => field),
      ['bmc.password'],
    )
    assert.equal((await get('/v1/nodes')).body.nodes.length, 1)
  })
})
