/** Nodes that lose their power, restart, or pull a wrong image in the middle of the work: noticed soon, and told why. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { after, describe, test } from 'node:test'
import { deployment } from '../lab/life.ts'
import { until } from '../lab/run.ts'
import { MIB } from './disk.ts'
import { openSite } from './site.ts'
import { allOf } from './told.ts'

const TEST = { timeout: 400_000 }
const SERVER_PORT = 8099
/** A node that is switched off must be noticed within this, though its step may take an hour. */
const NOTICED_S = 60

const site = await openSite({ nodes: 2, ram_mib: 512 })
after(() => site.close())
const { rack, client, image } = site

const failureIn = (name: string, state: string, deadline_ms?: number) =>
  client.wait(
    name,
    state,
    ({ busy, state: now, failure }) =>
      !busy && now === state && failure && { code: failure.code, reason: failure.reason },
    deadline_ms,
  )

describe('what is lost in the middle of the work is noticed', { concurrency: true }, () => {
  test('a node that loses its power, and one that restarts, fails its burn-in at once', TEST, async () => {
    const node = site.node(0)
    const { name } = node
    const underLoad = () =>
      until(`${name} to be under load`, 200_000, async () => (await client.node(name)).live?.progress?.done)
    await client.enroll(node)
    await client.command(name, 'verify', {}, 'manageable')
    const profile = { cpu: { seconds: 3000 }, memory: null, disk: null, network: null }
    await client.must('POST', `/v1/nodes/${name}/provide`, { profile })
    await underLoad()
    await rack.cutPower(0)
    assert.deepEqual(await failureIn(name, 'burn-in-failed', NOTICED_S * 1000), {
      code: 'power-lost',
      reason: 'the node lost its power, or somebody switched it off: its BMC says that it is off',
    })
    assert.equal((await client.node(name)).power.observed, 'off')

    await client.must('POST', `/v1/nodes/${name}/retry`, {})
    await underLoad()
    assert.equal((await rack.ipmitool(0, 'chassis', 'power', 'reset')).code, 0)
    assert.deepEqual(await failureIn(name, 'burn-in-failed', NOTICED_S * 1000), {
      code: 'agent-lost',
      reason: 'the node asked for a boot script in the middle of the work: it has been restarted',
    })
    const powers = allOf(await client.history(name), 'PowerObserved').map(({ power }) => power)
    assert.deepEqual(powers, ['off', 'on', 'off', 'on'])
  })

  test(
    'an image that is pulled from elsewhere with a wrong checksum leaves nothing that could boot',
    TEST,
    async () => {
      const node = site.node(1)
      const { name } = node
      const server = await imageServer()
      try {
        await client.enroll(node)
        await client.command(name, 'verify', {}, 'manageable')
        await client.command(name, 'provide', { burn_in: 'never' }, 'available')
        await fillHead(node.disk_paths[0] ?? '')
        const right = deployment(image, 'direct')
        const url = right.image.url.replace(`file://${site.image_dir}`, server.url)
        const wrong = `sha256:${'0'.repeat(64)}`
        const body = { ...right, image: { ...right.image, url, checksum: wrong } }
        await client.must('POST', `/v1/nodes/${name}/deploy`, body)
        assert.deepEqual(await failureIn(name, 'deploy-failed'), {
          code: 'image-wrong-checksum',
          reason:
            `image ${url}: wrong checksum: expected ${wrong}, the download has ${right.image.checksum}; ` +
            'nothing bootable is on vda',
        })
        const disk = await open(node.disk_paths[0] ?? '')
        try {
          const [head, rest] = [Buffer.alloc(MIB), Buffer.alloc(MIB)]
          await disk.read(head, 0, MIB, 0)
          await disk.read(rest, 0, MIB, MIB)
          assert.ok(
            head.every((byte) => byte === 0),
            'the first mebibyte is blank',
          )
          assert.ok(
            rest.some((byte) => byte !== 0),
            'what follows is the image',
          )
        } finally {
          await disk.close()
        }
      } finally {
        await server.close()
      }
    },
  )
})

/** As if an older system were there: it must not be left bootable. */
const fillHead = async (path: string) => {
  const disk = await open(path, 'r+')
  await disk.write(Buffer.alloc(MIB, 0xeb), 0, MIB, 0)
  await disk.close()
}

/** Somebody else's web server, in the rack's network. */
const imageServer = async () => {
  const where = `${rack.provisioning.address}:${SERVER_PORT}`
  const [command = '', ...args] = rack.exec(['busybox', 'httpd', '-f', '-p', where, '-h', site.image_dir])
  const child = spawn(command, args, { stdio: 'ignore' })
  await once(child, 'spawn')
  return {
    url: `http://${where}`,
    async close() {
      const gone = once(child, 'exit')
      child.kill()
      await gone
    },
  }
}
