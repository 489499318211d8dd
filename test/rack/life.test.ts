/** One node's whole life on a virtual rack, BIOS and iSCSI: what is recorded is compared with the hardware itself. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { BurnInReport } from '../../projections/burn-in-report.ts'
import { DEMO_PROFILE, deployment } from '../lab/life.ts'
import { until } from '../lab/run.ts'
import { differingSectors, hasBlankEnds } from './disk.ts'
import { openSite } from './site.ts'
import { done, gapOf, lastOf, statesOf } from './told.ts'

const GIB = 2 ** 30
const TEST = { timeout: 600_000 }
const USER_DATA = '#cloud-config\nhostname: tenant-7\n'
const BOOTS_RAMDISK = ['boot-device pxe', 'power-on pxe', 'power-off']

const site = await openSite({ nodes: 1, ram_mib: 1024 })
after(() => site.close())
const { rack, client, image } = site
const { name, mac, serial, disk_paths, disk_serials, dir } = site.node(0)
const [disk = ''] = disk_paths

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex')
/** A document, by the hash that an event gives: it is what the hash says. */
const documentOf = async (hash: string | undefined): Promise<string> => {
  const response = await fetch(`${client.url}/v1/blobs/${hash}`)
  const text = await response.text()
  assert.equal(sha256(text), hash)
  return text
}
/** The BMC's deeds since the last call of this. */
let told = 0
const deeds = () => {
  const all = done(rack.bmcLog(0))
  const since = all.slice(told)
  told = all.length
  return since
}

test('a node is verified and discovered: the log says what the rack was built with', TEST, async () => {
  await client.enroll(site.node(0))
  await client.command(name, 'verify', {}, 'manageable')
  assert.deepEqual(deeds(), [])
  const { hardware } = await client.command(name, 'discover', {}, 'manageable')
  assert.deepEqual(deeds(), BOOTS_RAMDISK)
  assert.equal(rack.powerOf(0), 'off')
  assert.ok(hardware)
  const { at, cpu_model, document, ...found } = hardware
  // A virtio disk does not say that it does not rotate.
  assert.deepEqual(found, {
    arch: 'x86_64',
    cores: 1,
    cpus: 1,
    memory_mib: 1024,
    disks: [{ name: 'vda', bytes: 6 * GIB, rotational: true, serial: disk_serials[0], model: '' }],
    nics: [{ mac, name: 'eth0', driver: 'virtio_net', carrier: true }],
    firmware: 'bios',
    vendor: 'Bloomery',
    product: 'Rack',
    serial,
  })
  const full = JSON.parse(await documentOf(document?.sha256))
  assert.equal(full.uuid, site.node(0).uuid)
  assert.equal(full.disks[0].serial, disk_serials[0])
})

test('it is burned in, with evidence for each step, and cleaned in the same boot', TEST, async () => {
  const profile = { ...DEMO_PROFILE, cpu: { seconds: 4 } }
  await client.must('POST', `/v1/nodes/${name}/provide`, { profile })
  await until('the processors to be under load', 120_000, async () => (await client.node(name)).live?.progress?.done)
  rack.bmc(0).setTemperature(61)
  await rack.addSelEntry(0)
  await client.become(name, 'available')
  assert.deepEqual(deeds(), BOOTS_RAMDISK)

  const { latest } = (await client.must('GET', `/v1/nodes/${name}/burn-in`)) as unknown as { latest: BurnInReport }
  assert.equal(latest.result, 'passed')
  const steps = latest.steps.filter(({ step }) => step.startsWith('burn-in.'))
  assert.deepEqual(
    steps.map(({ step, result }) => [step, result]),
    ['cpu', 'memory', 'disk', 'network'].map((word) => [`burn-in.${word}`, 'passed']),
  )
  for (const { step, evidence } of steps) {
    const parts = step === 'burn-in.disk' ? (evidence['disks'] as (typeof evidence)[]) : [evidence]
    for (const part of parts) {
      const { tool, version, command, figures, log } = part as Record<string, string> & { log?: { sha256: string } }
      assert.ok(tool && version && command, `${step}: ${JSON.stringify(part)}`)
      assert.ok(Object.keys(figures ?? {}).length > 0, `${step} has figures`)
      assert.ok((await documentOf(log?.sha256)).length > 0, `${step} has its log`)
    }
    const [celsius] = evidence['bmc_temperatures'] as { name: string; value: number }[]
    assert.equal(celsius?.value, 61)
    assert.equal((evidence['sel_added'] as unknown[]).length, step === 'burn-in.cpu' ? 1 : 0, step)
  }
  assert.match(JSON.stringify(steps[0]?.evidence['sel_added']), /CPU Temp.*Upper Critical going high/)
})

test('it is deployed: the disk is the image, and the tenant has read its config drive', TEST, async () => {
  await client.command(name, 'deploy', deployment(image, 'iscsi', { config_drive: { user_data: USER_DATA } }), 'active')
  // "disk" and "no override" are one and the same to this BMC.
  assert.deepEqual(deeds(), [...BOOTS_RAMDISK, 'boot-device default', 'power-on default'])
  assert.deepEqual(await differingSectors(disk, image.raw.path), [0], 'but for the partition table')
  const { instance } = await client.node(name)
  assert.equal(instance?.root_disk?.['serial'], disk_serials[0])
  const console = rack.consoleOf(0)
  assert.ok(console.includes(`CONFIG-DRIVE /dev/vda2 instance=${instance?.id}`))
  assert.ok(console.includes(`HOSTNAME ${name}`))
  assert.ok(console.includes(`USER-DATA ${sha256(USER_DATA)}`))
  await rack.consoleShows(0, 'PHONED-HOME')
})

test(
  'it is taken back: nothing of the tenant is left at either end of the disk, and the log says of which',
  TEST,
  async () => {
    await client.command(name, 'undeploy', {}, 'available')
    assert.deepEqual(deeds(), ['power-off', 'boot-device none', ...BOOTS_RAMDISK])
    assert.ok(await hasBlankEnds(disk))
    const { disks } = lastOf(await client.history(name), 'CleaningSucceeded')
    assert.deepEqual(
      disks.map(({ name, serial, method }) => ({ name, serial, method })),
      [{ name: 'vda', serial: disk_serials[0], method: 'metadata' }],
    )
  },
)

test('it is discovered again: what was changed is told, and only that', TEST, async (t) => {
  await client.command(name, 'discover', {}, 'manageable')
  assert.deepEqual(lastOf(await client.history(name), 'DiscoverySucceeded').changes, [])
  const args = join(dir, 'qemu.args')
  const second = join(dir, 'second.raw')
  writeFileSync(second, '')
  truncateSync(second, GIB)
  const drive = `-drive\nif=none,id=drive9,file=${second},format=raw\n-device\nvirtio-blk-pci,drive=drive9,serial=NEW\n`
  writeFileSync(args, readFileSync(args, 'utf8').replace('\n-m\n1024\n', '\n-m\n1536\n') + drive)
  await client.command(name, 'discover', {}, 'manageable')
  assert.deepEqual(deeds(), [...BOOTS_RAMDISK, ...BOOTS_RAMDISK])
  const history = await client.history(name)
  assert.deepEqual(lastOf(history, 'DiscoverySucceeded').changes, [
    { what: 'memory_mib', before: '1024', after: '1536' },
    { what: 'disk NEW', before: null, after: `${GIB} bytes, rotational` },
  ])
  assert.deepEqual(statesOf(history), [
    ...['enrolled', 'verifying', 'manageable', 'discovering', 'manageable', 'burning-in', 'cleaning', 'available'],
    ...['deploying', 'active', 'undeploying', 'cleaning', 'available'],
    ...['discovering', 'manageable', 'discovering', 'manageable'],
  ])
  assert.deepEqual(
    history.map(({ revision }) => revision),
    history.map((_, i) => i),
  )
  t.diagnostic(`control-plane gap of this life: ${gapOf(history)} ms in all its phases (the goal: below 1500 ms)`)
})
