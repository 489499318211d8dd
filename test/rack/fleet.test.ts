/** Three nodes at once: none gets in the way of another. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { deployment } from '../lab/life.ts'
import { differingSectors } from './disk.ts'
import { openSite } from './site.ts'
import { allOf, lastOf } from './told.ts'

const TEST = { timeout: 600_000 }
const SETTLE_S = 3

const site = await openSite({ nodes: 3, ram_mib: 512 })
after(() => site.close())
const { rack, client, image } = site

test('three nodes become active at once, one of them without waiting for its image to phone home', TEST, async () => {
  const quiet = 2
  const took = await Promise.all(
    rack.nodes.map(async (node, i) => {
      await client.enroll(node)
      await client.command(node.name, 'verify', {}, 'manageable')
      await client.command(node.name, 'provide', { burn_in: 'never' }, 'available')
      const more = i === quiet ? { ready: { rule: 'stays-on', settle_s: SETTLE_S } } : {}
      const body = deployment(image, i === 1 ? 'direct' : 'iscsi', more)
      await client.command(node.name, 'deploy', body, 'active')
      return client.history(node.name)
    }),
  )
  await Promise.all(rack.nodes.map((_, i) => rack.consoleShows(i, 'IMAGE-BOOTED-FROM-DISK firmware=bios')))
  assert.deepEqual(
    took.map((history) => lastOf(history, 'DeploymentSucceeded').observed.replace(/10\.77\.0\.\d+/, 'ADDRESS')),
    ['phoned home from ADDRESS as node1', 'phoned home from ADDRESS as node2', `it stayed on for ${SETTLE_S} s`],
  )
  for (const { disk_paths } of rack.nodes) {
    assert.deepEqual(await differingSectors(disk_paths[0] ?? '', image.raw.path), [0], 'but for the partition table')
  }

  const addresses = took.map(
    (history) =>
      new Set([
        ...allOf(history, 'AgentConnected').map(({ address }) => address),
        ...allOf(history, 'BootObserved').flatMap(({ kind, detail }) => (kind === 'dhcp-ack' ? [detail] : [])),
      ]),
  )
  for (const each of addresses) assert.equal(each.size, 1, `${[...each]}`)
  assert.equal(new Set(addresses.flatMap((each) => [...each])).size, rack.nodes.length, 'no address is given twice')
})
