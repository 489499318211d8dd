/** Things that go wrong with BMCs, boots and images: what an operator is told, and that a retry works once it is repaired. */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { deployment } from '../lab/life.ts'
import { run, until } from '../lab/run.ts'
import { inventoryOf, openAgent } from './agent.ts'
import { openSite } from './site.ts'
import { done } from './told.ts'

const TEST = { timeout: 180_000 }
/** Short, since each of them is waited for to its end here. */
const DEADLINES = 'bmc=8,power=10,ramdisk_boot=20'
const DEAD =
  'nothing came back (ipmitool said: "Get Auth Capabilities error | ' +
  'Error issuing Get Channel Authentication Capabilities request | ' +
  'Error: Unable to establish IPMI v2 / RMCP+ session"). ' +
  'Check its power, cable, VLAN and that IPMI over LAN is enabled; a hung BMC needs its own reset or a power drain.'

const site = await openSite({ nodes: 7, ram_mib: 256, env: { BLOOMERY_DEADLINES_S: DEADLINES } })
after(() => site.close())
const { rack, client, image } = site
const agent = openAgent(rack)

/** A BMC that is given up on after two seconds of silence. */
const known = async (i: number, bmc: object = {}) => {
  const node = site.node(i)
  await client.enroll({ ...node, bmc: { ...node.bmc, timeout_s: 1, retries: 1, ...bmc } as typeof node.bmc })
  return node
}
const manageable = async (i: number) => {
  const node = await known(i)
  await client.command(node.name, 'verify', {}, 'manageable')
  return node
}
/** What the operator reads when the node has come to rest in that state, or its power could not be switched. */
const failureIn = (name: string, state: string) =>
  client.wait(name, `a failure, in ${state}`, (node) => {
    if (node.busy || node.state !== state || !node.failure) return false
    const { code, reason, step } = node.failure
    return { code, reason, step }
  })
const order = (name: string, command: string, body: object = {}) =>
  client.must('POST', `/v1/nodes/${name}/${command}`, body)
const atStep = (name: string, step: string) => client.wait(name, step, ({ work }) => work?.step?.name === step)

describe('what goes wrong is told in words that help', { concurrency: true }, () => {
  test('a dead BMC when the node is verified; alive again, a retry does it', TEST, async () => {
    const { name, bmc } = await known(0)
    await rack.bmc(0).kill()
    await order(name, 'verify')
    assert.deepEqual(await failureIn(name, 'verify-failed'), {
      code: 'deadline',
      reason:
        'not done within 8 s of its start; it was waiting for the BMC to answer ' +
        `(Could not ask who it is through the BMC at ${bmc.address}:623: ${DEAD})`,
      step: 'management.info',
    })
    await rack.bmc(0).start()
    await client.command(name, 'retry', {}, 'manageable')
  })

  test('a BMC that lies, and one that dies in the middle of switching the power', TEST, async () => {
    const { name, bmc } = await manageable(1)
    rack.bmc(1).lie()
    await order(name, 'power', { action: 'on' })
    assert.deepEqual(await failureIn(name, 'manageable'), {
      code: 'deadline',
      reason:
        'not done within 10 s of its start; it was waiting for ' +
        'the chassis to be on: the BMC accepted "power on" 1 time(s) and reports otherwise',
      step: 'power.on',
    })
    await order(name, 'power', { action: 'on' })
    await until('the lie to be noticed', 8_000, async () =>
      (await client.node(name)).live?.waiting_for?.startsWith('the chassis to be on'),
    )
    await rack.bmc(1).kill()
    const { code, reason, step } = await failureIn(name, 'manageable')
    assert.deepEqual([code, step], ['deadline', 'power.on'])
    assert.equal(
      reason,
      'not done within 10 s of its start; it was waiting for the BMC to say whether the chassis is on ' +
        `(Could not read the power state through the BMC at ${bmc.address}:623: ${DEAD})`,
    )
    rack.bmc(1).tellTruth()
    await rack.bmc(1).start()
    await order(name, 'power', { action: 'on' })
    await client.wait(name, 'on', ({ busy, power }) => !busy && power.observed === 'on')
    await order(name, 'power', { action: 'off' })
    await client.wait(name, 'off', ({ busy, power }) => !busy && power.observed === 'off')
    assert.deepEqual(done(rack.bmcLog(1)), ['power-on default', 'power-off'])
  })

  test('a wrong password: told at once; with the right one, a retry does it', TEST, async () => {
    const { name, bmc } = await known(2, { password: 'not-this-one' })
    await order(name, 'verify')
    assert.deepEqual(await failureIn(name, 'verify-failed'), {
      code: 'bmc-wrong-credentials',
      reason:
        `Could not ask who it is through the BMC at ${bmc.address}:623: the password of user admin is wrong ` +
        '(ipmitool said: "> RAKP 2 HMAC is invalid"). Store the right password for this node.',
      step: 'management.info',
    })
    await client.must('PATCH', `/v1/nodes/${name}`, { bmc: { ...bmc, timeout_s: 1, retries: 1 } })
    await client.command(name, 'retry', {}, 'manageable')
  })

  test('a ramdisk that never comes: the last that was heard of the node is named', TEST, async () => {
    const silent = await manageable(3)
    const stuck = await manageable(4)
    for (const [i, node] of [[3, silent] as const, [4, stuck] as const]) {
      await rack.unplug(i)
      await order(node.name, 'discover')
    }
    await atStep(stuck.name, 'boot.agent')
    await leaseTo(stuck.mac)
    const because = 'not done within 20 s of its start; it was waiting for '
    assert.deepEqual(await failureIn(silent.name, 'discovery-failed'), {
      code: 'deadline',
      reason: `${because}the node to ask for an address (DHCP): nothing has been heard of it since it was switched on`,
      step: 'boot.agent',
    })
    assert.deepEqual(await failureIn(stuck.name, 'discovery-failed'), {
      code: 'deadline',
      reason: `${because}the node to load its boot program or its boot script: it has an address`,
      step: 'boot.agent',
    })
  })

  test('a MAC that belongs to another node: that node is named', TEST, async () => {
    const { name, mac } = await manageable(5)
    const foreign = '52:54:00:99:00:01'
    await client.must('POST', '/v1/nodes', {
      name: 'the-other',
      driver: 'ipmi',
      bmc: site.node(6).bmc,
      ports: [foreign],
    })
    await rack.unplug(5)
    await order(name, 'discover')
    await agent.session(await agent.token({ ...site.node(5), mac }), inventoryOf(site.node(5), foreign))
    assert.deepEqual(await failureIn(name, 'discovery-failed'), {
      code: 'mac-conflict',
      reason: `MAC ${foreign} belongs to node the-other`,
      step: 'inspect.collect',
    })
    await client.must('POST', '/v1/nodes/the-other/forget', {})
    await order(name, 'retry')
    await agent.session(await agent.token(site.node(5)), inventoryOf(site.node(5), foreign))
    const { ports } = await client.become(name, 'manageable')
    assert.deepEqual(
      ports.map((port) => port.mac),
      [mac, foreign],
    )
  })

  test(
    'an image with the wrong checksum: told before the node is touched; a disk that is not there: with those that are',
    TEST,
    async () => {
      const { name } = await manageable(6)
      await rack.unplug(6)
      await order(name, 'provide', { burn_in: 'never' })
      const session = await agent.session(await agent.token(site.node(6)), inventoryOf(site.node(6)))
      const { text } = await agent.order(session)
      const [, id = '', verb] = /^id=(\S+)\nverb=(\S+)/.exec(text) ?? []
      assert.equal(verb, 'wipe', text)
      await agent.result(session, id, { method: 'metadata', bytes: 1 })
      await client.become(name, 'available')

      const before = done(rack.bmcLog(6))
      const right = deployment(image, 'iscsi')
      const wrong = `sha256:${'0'.repeat(64)}`
      await order(name, 'deploy', { ...right, image: { ...right.image, checksum: wrong } })
      assert.deepEqual(await failureIn(name, 'deploy-failed'), {
        code: 'image-wrong-checksum',
        reason:
          `image ${right.image.url} has the checksum ${right.image.checksum}, ${wrong} was expected: ` +
          'correct the checksum, or somebody changed the image',
        step: 'deploy.image',
      })
      assert.deepEqual(done(rack.bmcLog(6)), before)
      await order(name, 'deploy', { ...right, root_device: { serial: 'ELSEWHERE' } })
      await agent.session(await agent.token(site.node(6)), inventoryOf(site.node(6)))
      assert.deepEqual(await failureIn(name, 'deploy-failed'), {
        code: 'no-root-disk',
        reason:
          'no disk fits as root device. ' +
          `vda (6.0 GiB, virtio, not rotating, model unknown, serial ${site.node(6).disk_serials[0]}): ` +
          'its serial is not ELSEWHERE. Correct the hints of the node (root_device) or inspect it again.',
        step: 'deploy.write-iscsi',
      })
    },
  )
})

/** Another machine with that MAC asks for an address, gets it, and asks for nothing more. */
const leaseTo = async (mac: string) => {
  const link = ['ip', '-n', rack.namespace, 'link']
  await run([...link, 'add', 'asks', 'address', mac, 'type', 'veth', 'peer', 'name', 'asks-port'])
  await run([...link, 'set', 'asks-port', 'master', rack.provisioning.interface, 'up'])
  await run([...link, 'set', 'asks', 'up'])
  await run(rack.exec(['busybox', 'udhcpc', '-f', '-q', '-n', '-i', 'asks', '-s', '/bin/true']))
}
