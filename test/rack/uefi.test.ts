/** UEFI nodes: NVMe disks and how the right one is chosen, GPT images pulled by the ramdisk, erased in full; and UEFI's own PXE. */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { deployment } from '../lab/life.ts'
import { differingSectors, hasBlankEnds, SECTOR_BYTES } from './disk.ts'
import { openSite } from './site.ts'
import { allOf, lastOf } from './told.ts'

const TEST = { timeout: 600_000 }
const DISKS = [
  { size_gib: 6, kind: 'nvme' },
  { size_gib: 7, kind: 'nvme' },
] as const
/** Protective MBR, header and entries; the second copy is at the end of what the image takes for its disk. */
const GPT_SECTORS = 34

const rom = await openSite({ nodes: 1, firmware: 'uefi', ram_mib: 768, disks: [DISKS], image: { table: 'gpt' } })
after(() => rom.close())
const plain = await openSite({ nodes: 1, firmware: 'uefi', boot_rom: 'firmware', ram_mib: 512 })
after(() => plain.close())

describe('a UEFI node', { concurrency: true }, () => {
  test('is deployed to the disk that the hints name, from a packed image, and erased in full', TEST, async () => {
    const { client, rack, image } = rom
    const node = rom.node(0)
    const { name } = node
    const [first, second] = node.disk_serials
    await client.enroll(node)
    await client.command(name, 'verify', {}, 'manageable')
    await client.command(name, 'provide', { burn_in: 'never' }, 'available')

    const body = deployment(image, 'direct', {
      image: {
        url: `file://${image.zst.path}`,
        format: 'raw',
        compression: 'zstd',
        checksum: `sha256:${image.zst.sha256}`,
      },
    })
    await client.command(name, 'deploy', { ...body, root_device: { serial: second } }, 'active')
    await rack.consoleShows(0, 'PHONED-HOME')
    assert.match(rack.consoleOf(0), /IMAGE-BOOTED-FROM-DISK firmware=uefi/)
    assert.match(rack.consoleOf(0), /CONFIG-DRIVE \/dev\/nvme1n1p\d /)
    const end = image.virtual_bytes / SECTOR_BYTES
    const changed = await differingSectors(node.disk_paths[1] ?? '', image.raw.path)
    const foreign = changed.filter((sector) => sector >= GPT_SECTORS && sector < end - GPT_SECTORS)
    assert.deepEqual(foreign, [], 'but for the partition table')
    assert.ok(await hasBlankEnds(node.disk_paths[0] ?? ''), 'the other disk is as it was')

    await client.command(name, 'undeploy', { erase: 'full' }, 'available')
    const { disks } = lastOf(await client.history(name), 'CleaningSucceeded')
    assert.deepEqual(
      disks.map(({ name, serial }) => [name, serial]),
      [
        ['nvme0n1', first],
        ['nvme1n1', second],
      ],
    )
    for (const { method, samples, zero_samples } of disks) {
      assert.match(String(method), /^(nvme|discard)/)
      assert.ok(Number(samples) >= 64)
      assert.equal(zero_samples, samples)
    }
    for (const path of node.disk_paths) assert.ok(await hasBlankEnds(path))
  })

  test('whose firmware boots from the network by itself is handed iPXE by TFTP, and discovered', TEST, async () => {
    const { client } = plain
    const node = plain.node(0)
    await client.enroll(node)
    await client.command(node.name, 'verify', {}, 'manageable')
    const { hardware } = await client.command(node.name, 'discover', {}, 'manageable')
    assert.equal(hardware?.firmware, 'uefi')
    assert.equal(hardware?.serial, node.serial)
    const story = allOf(await client.history(node.name), 'BootObserved')
    assert.match(story.find(({ kind }) => kind === 'tftp')?.detail ?? '', /snponly\.efi/)
    assert.equal(story.at(-1)?.kind, 'agent')
  })
})
