/** The config drive's partition, checked by sfdisk on real (sparse) disks. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, open, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { HEAD_BYTES, type PartitionPlan, planConfigPartition } from '../../src/boot/partitions.ts'

const MIB = 2 ** 20

/** A disk on which an image of `image_mib` was written: its table knows nothing of the rest. */
async function diskWith(t: TestContext | null, table: string, image_mib: number, disk_mib: number) {
  const dir = await mkdtemp(join(tmpdir(), 'partition-test-'))
  const remove = () => rm(dir, { recursive: true, force: true })
  t?.after(remove)
  const path = join(dir, 'disk')
  await (await open(path, 'w')).close()
  await truncate(path, image_mib * MIB)
  if (table !== '') sfdisk(['-q', path], table)
  await truncate(path, disk_mib * MIB)
  const bytes = disk_mib * MIB
  return {
    path,
    bytes,
    remove,
    plan: async (iso_bytes: number): Promise<PartitionPlan> => {
      const file = await open(path)
      const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0)
      await file.close()
      return planConfigPartition({
        head: buffer.subarray(0, bytesRead),
        disk_bytes: bytes,
        iso_bytes,
        sector_bytes: 512,
      })
    },
    apply: async (plan: PartitionPlan) => {
      assert.equal(plan.kind, 'plan', JSON.stringify(plan))
      const file = await open(path, 'r+')
      for (const { offset, bytes: data } of plan.writes) await file.write(data, 0, data.length, offset)
      await file.close()
      return plan
    },
  }
}

function sfdisk(args: string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync('sfdisk', args, { input, encoding: 'utf8', timeout: 10_000 })
  assert.equal(status, 0, `sfdisk ${args.join(' ')}: ${stderr}`)
  return args[0] === '-J' ? stdout : stdout + stderr
}

type Row = { start: number; size: number; type: string; uuid?: string; name?: string; bootable?: boolean }
const rows = (path: string): Row[] =>
  JSON.parse(sfdisk(['-J', path])).partitiontable.partitions.map(({ node: _, ...row }: Row & { node: string }) => row)

const TABLES = {
  mbr: 'label: dos\nstart=2048, size=40960, type=ef, bootable\nstart=43008, size=20480, type=83\n',
  gpt: 'label: gpt\nstart=2048, size=40960, type=U\nstart=43008, size=20480, type=L, name=root\n',
}

for (const kind of ['mbr', 'gpt'] as const) {
  test(`${kind}: the partition is at the end of the disk, and sfdisk finds nothing to say about the table`, async (t) => {
    const disk = await diskWith(t, TABLES[kind], 32, 6144)
    const before = rows(disk.path)
    const { partition, table } = await disk.apply(await disk.plan(400_000))
    assert.equal(table, kind)
    assert.equal(partition.number, 3)
    assert.match(sfdisk(['--verify', disk.path]), /No errors detected/)
    const after = rows(disk.path)
    assert.deepEqual(after.slice(0, 2), before)
    assert.equal((after[2]?.start ?? 0) * 512, partition.offset)
    assert.equal((after[2]?.size ?? 0) * 512, partition.length)
    assert.ok(partition.offset % MIB === 0 && partition.length >= 400_000)
    assert.ok(partition.offset > disk.bytes - 3 * MIB)
    if (kind === 'gpt') assert.equal(after[2]?.name, 'config-2')
  })

  test(`${kind}: the same plan again writes the same bytes, and another drive replaces the one before`, async (t) => {
    const disk = await diskWith(t, TABLES[kind], 32, 6144)
    const first = await disk.apply(await disk.plan(400_000))
    assert.deepEqual(await disk.plan(400_000), first)
    await disk.apply(await disk.plan(5_000_000))
    assert.equal(rows(disk.path).length, 3)
    assert.match(sfdisk(['--verify', disk.path]), /No errors detected/)
  })

  test(`${kind}: an image that fills the disk leaves no room`, async (t) => {
    const disk = await diskWith(t, TABLES[kind], 32, 32)
    const plan = await disk.plan(5_000_000)
    assert.equal(plan.kind === 'problem' && plan.problem, 'overlap')
  })

  test(`${kind}: whatever partitions an image has, they stay as they are`, async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 3 })
    await fc.assert(
      fc.asyncProperty(
        sizes,
        fc.integer({ min: 70, max: 9000 }),
        fc.integer({ min: 1, max: 3 * MIB }),
        async (mib, disk_mib, iso) => {
          let next = 2048
          const lines = mib.map((size) => {
            const line = `start=${next}, size=${size * 2048}`
            next += size * 2048
            return line
          })
          const disk = await diskWith(
            null,
            `label: ${kind === 'mbr' ? 'dos' : 'gpt'}\n${lines.join('\n')}\n`,
            62,
            disk_mib,
          )
          try {
            const before = rows(disk.path)
            await disk.apply(await disk.plan(iso))
            assert.match(sfdisk(['--verify', disk.path]), /No errors detected/)
            assert.deepEqual(rows(disk.path).slice(0, before.length), before)
          } finally {
            await disk.remove()
          }
        },
      ),
      { numRuns: 10 },
    )
  })
}

test('an extended partition counts as taken, and an MBR with four primaries has no slot', async (t) => {
  const four = 'label: dos\nsize=1MiB\nsize=1MiB\nsize=1MiB\nsize=4MiB, type=5\nsize=1MiB\n'
  const plan = await (await diskWith(t, four, 32, 64)).plan(400_000)
  assert.equal(plan.kind === 'problem' && plan.problem, 'no-free-slot')
})

test('a disk of more than 2 TiB with an MBR gets its partition where the MBR can still name it', async (t) => {
  const disk = await diskWith(t, TABLES.mbr, 32, 3 * 1024 * 1024)
  const { partition } = await disk.apply(await disk.plan(400_000))
  assert.ok(partition.offset + partition.length <= 2 ** 32 * 512)
  assert.equal(rows(disk.path).length, 3)
})

test('no table, a file system in its place, a broken GPT and large sectors are told apart', async (t) => {
  const problemOf = (plan: PartitionPlan) => (plan.kind === 'problem' ? plan.problem : plan.kind)
  const blank = Buffer.alloc(HEAD_BYTES)
  const ask = (head: Buffer, sector_bytes = 512) =>
    problemOf(planConfigPartition({ head, disk_bytes: 6144 * MIB, iso_bytes: 400_000, sector_bytes }))
  assert.equal(ask(blank), 'no-table')
  assert.equal(ask(blank, 4096), 'sector-size')
  const signed = Buffer.from(blank)
  signed.writeUInt16LE(0xaa55, 510)
  assert.equal(ask(signed), 'no-table')
  const boot_sector = Buffer.from(signed).fill(0x41, 3, 510)
  assert.equal(ask(boot_sector), 'damaged')

  const disk = await diskWith(t, TABLES.gpt, 32, 6144)
  for (const at of [512, 540, 1030]) {
    const file = await open(disk.path, 'r+')
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at)
    await file.write(Buffer.from([(buffer[0] ?? 0) ^ 0xff]), 0, 1, at)
    const plan = await disk.plan(400_000)
    assert.equal(problemOf(plan), 'damaged', `byte ${at}`)
    await file.write(buffer, 0, 1, at)
    await file.close()
  }
})

test('no bytes, whatever they are, crash the planner or make it write outside of the disk', () => {
  const head = fc.uint8Array({ minLength: 1024, maxLength: 4096 }).map((bytes) => {
    const buffer = Buffer.from(bytes)
    buffer.writeUInt16LE(0xaa55, 510)
    for (const at of [446, 462, 478, 494]) buffer[at] = 0
    return buffer
  })
  fc.assert(
    fc.property(head, fc.nat(2 ** 31), fc.nat(2 ** 26), (bytes, disk_bytes, iso_bytes) => {
      const plan = planConfigPartition({ head: bytes, disk_bytes, iso_bytes, sector_bytes: 512 })
      if (plan.kind === 'problem') return
      for (const { offset, bytes: data } of plan.writes) assert.ok(offset >= 0 && offset + data.length <= disk_bytes)
      assert.ok(plan.partition.offset + plan.partition.length <= disk_bytes)
    }),
  )
})
