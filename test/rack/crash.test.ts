/** The service is killed in the middle of real deployments: each goes on where it was, and nothing is done twice. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { deployment, type NodeView } from '../lab/life.ts'
import { until } from '../lab/run.ts'
import { differingSectors } from './disk.ts'
import { openSite } from './site.ts'
import { allOf, done } from './told.ts'

const TEST = { timeout: 400_000 }
const MOMENT_DEADLINE_MS = 120_000
/** The kernel ends what the service had started, but not in the same instant. */
const GONE_DEADLINE_MS = 2_000

const site = await openSite({ nodes: 2, ram_mib: 512 })
after(() => site.close())
const { rack, client, image } = site

type Moment = readonly [what: string, how: 'kill' | 'stop', when: (node: NodeView) => unknown]
const at = (step: string) => (node: NodeView) => node.work?.step?.name === step
const moving = (step: string) => (node: NodeView) => at(step)(node) && node.live?.progress?.done

/** Deploys with the service ended at each of the moments, and started again; then compares the log with the hardware. */
const deployThrough = async (i: number, body: object, moments: readonly Moment[]) => {
  const { name, disk_paths } = site.node(i)
  const before = done(rack.bmcLog(i)).length
  const acknowledged = new Map<number, string>()
  await client.must('POST', `/v1/nodes/${name}/deploy`, body)
  for (const [what, how, when] of moments) {
    await until(what, MOMENT_DEADLINE_MS, async () => when(await client.node(name)))
    for (const { revision, id } of await client.history(name)) acknowledged.set(revision, id)
    await site[how]()
    await until(`no writer is left: ${what}`, GONE_DEADLINE_MS, async () => (await site.processes()).length === 0)
    await site.start()
  }
  await client.become(name, 'active')

  const history = await client.history(name)
  assert.deepEqual(
    history.map(({ revision }) => revision),
    history.map((_, revision) => revision),
  )
  for (const [revision, id] of acknowledged) assert.equal(history[revision]?.id, id, 'what was told stays so')
  assert.deepEqual(await differingSectors(disk_paths[0] ?? '', image.raw.path), [0], 'but for the partition table')
  const power = done(rack.bmcLog(i))
    .slice(before)
    .filter((deed) => deed.startsWith('power') || deed.startsWith('reset'))
  assert.deepEqual(power, ['power-on pxe', 'power-off', 'power-on default'], 'what the plan needs, and no more')
  return allOf(history, 'StepStarted')
    .filter(({ run }) => run > 1)
    .map((begun) => `${begun.interface}.${begun.step}`)
}

test('two nodes are made available', TEST, async () => {
  await Promise.all(
    rack.nodes.map(async (node) => {
      await client.enroll(node)
      await client.command(node.name, 'verify', {}, 'manageable')
      await client.command(node.name, 'provide', { burn_in: 'never' }, 'available')
    }),
  )
})

test('a deployment over iSCSI survives five deaths of the service, and an end in order', TEST, async () => {
  const taken_up = await deployThrough(0, deployment(image, 'iscsi'), [
    ['before the ramdisk is awaited', 'kill', at('power.on')],
    ['while the ramdisk boots', 'kill', ({ work }) => work?.boot.some(({ kind }) => kind === 'kernel')],
    ['while the image is written', 'kill', moving('deploy.write-iscsi')],
    ['while the image is written again', 'stop', moving('deploy.write-iscsi')],
    ['while the config drive is written', 'kill', at('deploy.config-drive')],
    ['while the tenant boots', 'kill', at('boot.tenant')],
  ])
  // Each end found one step running, and that one was begun again; a slow machine may be a step further than was looked for.
  assert.equal(taken_up.length, 6, `${taken_up}`)
  assert.ok(taken_up.includes('deploy.write-iscsi'), `${taken_up}`)
})

test('a deployment by the ramdisk survives the death of the service that it pulls from', TEST, async () => {
  const taken_up = await deployThrough(1, deployment(image, 'direct'), [
    ['while the image is pulled', 'kill', moving('deploy.write-direct')],
  ])
  assert.deepEqual(taken_up, ['deploy.write-direct'])
})

test('an end in order leaves nothing running', TEST, async () => {
  await site.stop()
  assert.deepEqual(await site.processes(), [])
  await site.start()
})
