/** Boots the ramdisk in a virtual machine and gives its agent every order there is. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { type AgentServer, type Order, startAgentServer } from './support/agent-server.ts'
import { type AgentVm, type AgentVmOptions, startAgentVm } from './support/agent-vm.ts'
import { freePort, writeOverIscsi } from './support/initiator.ts'

const run = promisify(execFile)
const recipe = join(import.meta.dirname, '../deploy/ramdisk')
const cache = join(import.meta.dirname, '../.cache/ramdisk')
const built = join(cache, 'cloud-amd64')
const MIB = 1024 * 1024
const BUILD_DEADLINE_MS = 600_000 // the first time everything is downloaded
const BOOT_DEADLINE_MS = 90_000
const ORDER_DEADLINE_MS = 60_000

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

const image = randomBytes(MIB + 65536)
const files = new Map([
  ['image', image],
  ['image.gz', gzipSync(image)],
  ['image.zst', zstdCompressSync(image)],
  ['cut-off', image],
  ['private-image', image],
])

describe('the ramdisk', { timeout: BUILD_DEADLINE_MS + 300_000 }, () => {
  let dir: string
  let service: AgentServer
  let vm: AgentVm
  let vmOptions: AgentVmOptions
  let serial = 0
  const disk = () => join(dir, 'disk') // vda
  const order = (verb: string, args: Order['args'] = {}, more: Partial<Order> = {}) => {
    serial += 1
    return within(ORDER_DEADLINE_MS, service.order({ id: `order-${serial}`, verb, args, ...more }))
  }
  const url = (file: string) => `http://10.0.2.2:${service.port}/files/${file}`

  before(async () => {
    await run(join(recipe, 'build.sh'), ['--flavour', 'cloud-amd64', '--cache', cache])
    dir = await mkdtemp(join(tmpdir(), 'ramdisk-test-'))
    await writeFile(disk(), Buffer.alloc(72 * MIB, 0xff))
    await writeFile(join(dir, 'nvme'), Buffer.alloc(16 * MIB, 0xff))
    await writeFile(
      join(dir, 'initrd'),
      Buffer.concat(await Promise.all(['ramdisk.img', 'burnin.img'].map((name) => readFile(join(built, name))))),
    )
    service = await startAgentServer({ token: 'one-time', files })
    vmOptions = {
      kernel: join(built, 'vmlinuz'),
      initrd: join(dir, 'initrd'),
      service_port: service.port,
      token: 'one-time',
      serial: 'NODE-1',
      iscsi_port: await freePort(),
      qmp: join(dir, 'qmp'),
      disks: [
        { path: disk(), device: 'virtio-blk-pci', serial: 'DISK-1' },
        { path: join(dir, 'nvme'), device: 'nvme', serial: 'NVME-1' },
      ],
    }
    vm = startAgentVm(vmOptions)
  })

  after(async () => {
    if (process.env['BLOOMERY_TEST_CONSOLE']) await writeFile(process.env['BLOOMERY_TEST_CONSOLE'], vm?.console() ?? '')
    await vm?.stop()
    await service?.close()
    if (dir) await rm(dir, { recursive: true, force: true })
  })

  it('says what the machine is', async () => {
    const inventory = await within(BOOT_DEADLINE_MS, service.hello)
    assert.partialDeepStrictEqual(inventory, {
      agent: '1',
      serial: 'NODE-1',
      uuid: vm.uuid,
      vendor: 'Test "Co"',
      firmware: 'bios',
      cpus: 2,
      memory_mib: 1024,
      memory_source: 'smbios',
      boot_nic: vm.mac,
      ip: '10.0.2.15',
      nics: [{ name: 'eth0', mac: vm.mac, carrier: true, driver: 'virtio_net', speed_mbps: null }],
      tools: ['fio', 'hdparm', 'nvme', 'stress-ng', 'zstd'],
    })
    const [nvme, virtio] = inventory['disks'] as Record<string, unknown>[]
    assert.partialDeepStrictEqual(nvme, {
      name: 'nvme0n1',
      serial: 'NVME-1',
      bus: 'nvme',
      bytes: 16 * MIB,
      rotational: false,
    })
    assert.partialDeepStrictEqual(virtio, {
      name: 'vda',
      serial: 'DISK-1',
      bus: 'virtio',
      bytes: 72 * MIB,
      discard: true,
    })
    assert.ok((inventory['pci'] as Record<string, unknown>[]).some(({ vendor }) => vendor === '1af4'))
  })

  it('writes, reads back and sums sectors', async () => {
    const data = randomBytes(70 * 512)
    const written = await order('write', { disk: 'vda', offset: 1536, length: data.length }, { data })
    assert.deepEqual([written.rc, written.body], [0, { sha256: sha256(data) }])
    const read = await order('read', { disk: 'vda', offset: 1536, length: data.length })
    assert.deepEqual(read.uploads.get('sectors'), data)
    const whole = await order('digest', { disk: 'vda', length: 3 * MIB, algorithm: 'sha256' })
    assert.equal(whole.body['sha256'], sha256(await bytesOf(disk(), 0, 3 * MIB)))
  })

  it('refuses to write what the service did not give in full, or beyond the end', async () => {
    const short = await order('write', { disk: 'vda', offset: 0, length: 1024 }, { data: Buffer.alloc(512) })
    assert.deepEqual([short.rc, short.body['reason']], [4, 'the service gave 512 bytes, not 1024'])
    const beyond = await order('read', { disk: 'vda', offset: 72 * MIB, length: 512 })
    assert.equal(beyond.rc, 2)
    const nonsense = await order('read', { disk: '../../etc/passwd', offset: '$(reboot)', length: 512 })
    assert.match(String(nonsense.body['reason']), /names no disk/)
  })

  for (const [name, compression] of [
    ['image', 'none'],
    ['image.gz', 'gzip'],
    ['image.zst', 'zstd'],
  ] as const) {
    it(`pulls an image with compression ${compression} straight to the disk`, async () => {
      await clear(disk(), 3 * MIB)
      const file = files.get(name) ?? Buffer.alloc(0)
      const checksum = `sha256:${sha256(file)}`
      const { rc, body } = await order('pull', {
        url: url(name),
        disk: 'vda',
        compression,
        checksum,
        size: file.length,
        auth: 'none',
      })
      assert.deepEqual([rc, body], [0, { bytes_downloaded: file.length, bytes_written: image.length, checksum }])
      assert.ok(image.equals(await bytesOf(disk(), 0, image.length)))
    })
  }

  it('leaves a disk that cannot boot when the image is not what it should be', async () => {
    const pull = (args: Order['args']) =>
      order('pull', { disk: 'vda', compression: 'none', size: 0, auth: 'none', ...args })
    const wrong = await pull({ url: url('image'), checksum: `sha256:${sha256(Buffer.from('another'))}` })
    assert.equal(wrong.rc, 3)
    assert.match(String(wrong.body['reason']), new RegExp(`expected sha256:.*has sha256:${sha256(image)}`))
    assert.ok((await bytesOf(disk(), 0, MIB)).equals(Buffer.alloc(MIB)))
    const cut = await pull({ url: url('cut-off'), checksum: `sha256:${sha256(image)}` })
    assert.equal(cut.rc, 4)
    const missing = await pull({ url: url('missing'), checksum: `sha256:${sha256(image)}` })
    assert.match(String(missing.body['reason']), /404/)
    const unpacked = await pull({ url: url('image'), compression: 'gzip', checksum: `sha256:${sha256(image)}` })
    assert.equal(unpacked.rc, 6)
    assert.ok((await bytesOf(disk(), 0, MIB)).equals(Buffer.alloc(MIB)))
  })

  it('shows its session to the service only, and checks sha512 too', async () => {
    const checksum = `sha512:${createHash('sha512').update(image).digest('hex')}`
    const pulled = await order('pull', { url: url('private-image'), disk: 'vda', checksum, auth: 'session' })
    assert.equal(pulled.rc, 0)
  })

  it('exports the disk to whoever knows the secret, and to nobody after the next export', async () => {
    const initiator = (iqn: string, secret: string) =>
      writeOverIscsi({ dir, port: vmOptions.iscsi_port ?? 0, target: iqn, user: first.user, secret })
    const first = { disk: 'vda', iqn: 'iqn.2026-01.test:first', user: 'chap-user', secret: 'first-secret-0001' }
    const exported = await order('export', first)
    assert.deepEqual([exported.rc, exported.body], [0, { portal: '10.0.2.15:3260', lun: 0 }])
    await assert.rejects(initiator(first.iqn, 'wrong-secret-0001'), /Authentication|login/i)
    const data = await initiator(first.iqn, first.secret)
    const second = { ...first, iqn: 'iqn.2026-01.test:second', secret: 'second-secret-002' }
    assert.equal((await order('export', second)).rc, 0)
    await assert.rejects(initiator(first.iqn, first.secret))
    assert.equal((await order('unexport')).rc, 0)
    await assert.rejects(initiator(second.iqn, second.secret))
    const digest = await order('digest', { disk: 'vda', length: data.length, algorithm: 'sha256' })
    assert.equal(digest.body['sha256'], sha256(data))
  })

  it('wipes the metadata at both ends and where filesystems keep copies, and only of the disk that is meant', async () => {
    await writeFile(disk(), Buffer.alloc(72 * MIB, 0xff))
    const other = await order('wipe', { disk: 'vda', serial: 'DISK-2' })
    assert.deepEqual(
      [other.rc, other.body['reason']],
      [5, "vda has the serial number 'DISK-1', the order is for 'DISK-2'"],
    )
    assert.equal((await bytesOf(disk(), 0, 1))[0], 0xff)
    const { rc, body } = await order('wipe', { disk: 'vda', serial: 'DISK-1' })
    assert.partialDeepStrictEqual({ rc, ...body }, { rc: 0, method: 'metadata', serial: 'DISK-1' })
    const zero = async (offset_mib: number) => (await bytesOf(disk(), offset_mib * MIB, MIB)).equals(Buffer.alloc(MIB))
    assert.deepEqual(await Promise.all([0, 15, 56, 64, 71].map(zero)), [true, true, true, true, true])
    assert.equal(await zero(20), false)
  })

  for (const [name, method, used] of [
    ['vda', 'auto', 'discard'],
    ['vda', 'overwrite', 'overwrite'],
    ['nvme0n1', 'auto', 'nvme'],
  ] as const) {
    it(`erases all of ${name} with method ${method}`, async () => {
      const [path, bytes, of] = name === 'vda' ? [disk(), 72 * MIB, 'DISK-1'] : [join(dir, 'nvme'), 16 * MIB, 'NVME-1']
      await writeFile(path, Buffer.alloc(bytes, 0xff))
      const { rc, body } = await order('erase', { disk: name, serial: of, method })
      assert.deepEqual([rc, body], [0, { method: used, bytes, serial: of, zero_samples: 64, samples: 64 }])
      assert.ok((await readFile(path)).equals(Buffer.alloc(bytes)))
    })
  }

  for (const [verb, args, tool] of [
    ['cpu', { seconds: 1, workers: 0 }, 'stress-ng'],
    ['memory', { seconds: 1, percent: 5 }, 'stress-ng'],
    ['disk', { disk: 'vda', serial: 'DISK-1', seconds: 1, bytes: 4 * MIB, mode: 'read' }, 'fio'],
    ['disk', { disk: 'vda', serial: 'DISK-1', seconds: 2, bytes: 4 * MIB, mode: 'verify-write' }, 'fio'],
    ['network', { bytes: 2 * MIB }, 'agent'],
  ] as const) {
    it(`burns in: ${verb} ${'mode' in args ? args.mode : ''}`, async () => {
      const { rc, body, uploads } = await order(verb, args)
      assert.partialDeepStrictEqual({ rc, ...body }, { rc: 0, tool, failures: [] })
      assert.equal(body['log_sha256'], sha256(uploads.get('log') ?? Buffer.alloc(0)))
      assert.ok(Object.values(body['figures'] as object).every(Number.isFinite))
    })
  }

  it('does not run an order twice that the service gives twice', async () => {
    const twice = {
      id: 'the-same',
      verb: 'write',
      args: { disk: 'vda', offset: 0, length: 512 },
      data: randomBytes(512),
    }
    const first = await within(ORDER_DEADLINE_MS, service.order(twice))
    const requests = service.dataRequests()
    const second = await within(ORDER_DEADLINE_MS, service.order({ ...twice, data: randomBytes(512) }))
    assert.deepEqual([second.rc, second.body], [0, first.body])
    assert.equal(service.dataRequests(), requests)
  })

  it('stops when the service says so, and knows what it does not know', async () => {
    const stopped = await order('cpu', { seconds: 300 }, { stop: 'at-first-progress' })
    assert.deepEqual([stopped.rc, stopped.body], [130, { reason: 'stopped as the service asked' }])
    assert.match(stopped.progress[0] ?? '', /^done=\d+\ntotal=\d+\nunit=(seconds|bytes)\n$/)
    assert.equal((await order('dance')).rc, 127)
  })

  it('goes off when its power button is pressed', async () => {
    await vm.pressPowerButton()
    await within(ORDER_DEADLINE_MS, vm.exited)
  })

  it('says on its console why it was refused, and asks no more', async () => {
    await vm.stop()
    vm = startAgentVm({ ...vmOptions, token: 'used-before', initrd: join(built, 'ramdisk.img') })
    await vm.prints(
      'the service refused this machine (409): this token was used before',
      AbortSignal.timeout(BOOT_DEADLINE_MS),
    )
    assert.deepEqual(service.refusals, ['NODE-1'])
    await vm.stop()
  })
})

async function bytesOf(path: string, offset: number, length: number): Promise<Buffer> {
  await using file = await open(path)
  return (await file.read(Buffer.alloc(length), 0, length, offset)).buffer
}

/** Zeroes the start of a disk and keeps its size. */
async function clear(path: string, bytes: number): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write(Buffer.alloc(bytes), 0, bytes, 0)
}

async function within<T>(deadline_ms: number, promise: Promise<T>): Promise<T> {
  const timer = AbortSignal.timeout(deadline_ms)
  const late = once(timer, 'abort').then(() => {
    throw new Error(`nothing after ${deadline_ms} ms`)
  })
  return Promise.race([promise, late])
}
