/** The provisioning network trusts nobody: who comes with the wrong token, or too late, moves nothing, and it is recorded. */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { feed } from '../support/feed.ts'
import { inventoryOf, openAgent } from './agent.ts'
import { openSite } from './site.ts'
import { allOf } from './told.ts'

const TEST = { timeout: 120_000 }
const UNKNOWN = '52:54:00:ab:cd:ef'

const site = await openSite({ nodes: 3, ram_mib: 256 })
after(() => site.close())
const { rack, client } = site
const agent = openAgent(rack)

/** Verified and told to boot its ramdisk; its own network cable is out, so that only this test speaks for it. */
const awaitingAgent = async (i: number, command: string, body: object = {}) => {
  const node = site.node(i)
  await rack.unplug(i)
  await client.enroll(node)
  await client.command(node.name, 'verify', {}, 'manageable')
  await client.must('POST', `/v1/nodes/${node.name}/${command}`, body)
  return node
}

describe('who is not who it should be is turned away', { concurrency: true }, () => {
  test('an agent without the right token is refused, and the node that it concerns says why', TEST, async () => {
    const [node, other] = await Promise.all([awaitingAgent(0, 'discover'), awaitingAgent(1, 'discover')])
    const inventory = inventoryOf(node)
    const refused = async (token: string, because: string) =>
      assert.deepEqual(await agent.hello(token, inventory), { status: 403, text: because })
    await refused('', 'the token is not one of ours')
    await refused('bm90IGEgdG9rZW4', 'the token is not one of ours')
    await refused(await agent.token(other), 'the token was made for another node')
    const first = await agent.token(node)
    const session = await agent.session(first, inventory)
    await refused(first, 'the token was used already')
    await client.become(node.name, 'manageable')
    await refused(first, 'the attempt that the token was made for is over')
    assert.deepEqual(await agent.order(session), { status: 410, text: 'the session is over' })

    await client.must('POST', `/v1/nodes/${node.name}/discover`, {})
    await refused(first, 'the token was made for an older attempt')
    assert.equal((await agent.order(session)).status, 410)
    await agent.session(await agent.token(node), inventory)
    const { hardware } = await client.become(node.name, 'manageable')
    assert.equal(hardware?.cpu_model, 'said by a test')

    assert.deepEqual(
      allOf(await client.history(node.name), 'AgentRefused').map(({ reason }) => reason),
      [
        'the token is not one of ours', // once: what comes again at once is not told again
        'the token was made for another node',
        'the token was used already',
        'the attempt that the token was made for is over',
        'the token was made for an older attempt',
      ],
    )
    assert.deepEqual(allOf(await client.history(other.name), 'AgentRefused'), [])
    assert.equal(site.log().includes(first), false, 'no token is logged')
    assert.equal(site.log().includes(session), false, 'no session is logged')
  })

  test('a result that comes too late is recorded as that, and moves nothing', TEST, async () => {
    const node = await awaitingAgent(2, 'clean')
    const session = await agent.session(await agent.token(node), inventoryOf(node))
    const { text } = await agent.order(session)
    const [, order = ''] = /^id=(\S+)/.exec(text) ?? []
    assert.match(text, new RegExp(`^id=\\S+\\nverb=wipe\\n(.*\\n)*serial=${node.disk_serials[0]}$`))

    const older = '1.0.wipe.vda'
    const late = await agent.result(session, older, { method: 'metadata' })
    assert.deepEqual(late, { status: 200, text: 'too late: recorded, and nothing moved' })
    assert.equal((await client.node(node.name)).state, 'cleaning')

    await agent.result(session, order, { method: 'metadata', bytes: 1 })
    await client.become(node.name, 'manageable')
    const over = await agent.result(session, order, { method: 'metadata', bytes: 2 })
    assert.deepEqual(over, { status: 410, text: 'the session is over' })
    const history = await client.history(node.name)
    assert.deepEqual(
      allOf(history, 'LateReportReceived').map(({ what }) => what),
      [`result of order ${older}`, `result of order ${order}`],
    )
    assert.deepEqual(
      allOf(history, 'CleaningSucceeded').map(({ disks }) => disks[0]?.['bytes']),
      [1],
    )
    assert.equal(history.at(-1)?.state, 'manageable')
  })

  test('a MAC that nobody enrolled is sent to its own disk, and recorded once', TEST, async () => {
    for (let asks = 1; asks <= 3; asks++) {
      const script = await agent.bootScript(UNKNOWN)
      assert.match(script, /^#!ipxe\necho 52:54:00:ab:cd:ef belongs to no enrolled node: booting from its own disk\n/)
      assert.match(script, /sanboot --no-describe --drive 0x80 \|\| exit$/)
      assert.doesNotMatch(script, /token|kernel/)
    }
    const seen: unknown[] = []
    const stop = new AbortController()
    for await (const { event, data } of feed(`${client.url}/v1/events`, stop.signal)) {
      if (event === 'UnknownMacSeen') seen.push(JSON.parse(data).data)
      if (event === 'caught-up') break
    }
    stop.abort()
    const { address } = rack.provisioning
    assert.deepEqual(seen, [{ mac: UNKNOWN, address, uuid: '', serial: 'S1', firmware: 'pcbios' }])
    assert.equal((await client.call('GET', '/v1/nodes/unknown')).status, 404)
  })
})
