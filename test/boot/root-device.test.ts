/** Which disk an image goes to. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseRootDisk, type Disk } from '../../src/boot/root-device.ts'

const GIB = 2 ** 30
const disk = (name: string, gib: number, more: Partial<Disk> = {}): Disk => ({
  name,
  bytes: gib * GIB,
  rotational: false,
  serial: `S-${name}`,
  model: 'QEMU HARDDISK',
  bus: 'ata',
  ...more,
})
const nameOf = (choice: ReturnType<typeof chooseRootDisk>) =>
  choice.kind === 'chosen' ? choice.disk.name : choice.kind

test('without hints the smallest disk over 4 GiB is taken, and of equals the first by name', () => {
  assert.equal(nameOf(chooseRootDisk([disk('sda', 100), disk('sdc', 20), disk('sdb', 20), disk('sdd', 4)])), 'sdb')
  assert.equal(nameOf(chooseRootDisk([disk('nvme10n1', 20), disk('nvme2n1', 20)])), 'nvme2n1')
})

test('the order in which disks are reported does not matter', () => {
  const disks = [disk('sda', 100), disk('sdb', 20), disk('sdc', 20)]
  assert.deepEqual(chooseRootDisk(disks), chooseRootDisk(disks.toReversed()))
})

test('every hint must hold', () => {
  const disks = [
    disk('sda', 20),
    disk('sdb', 480, { model: 'INTEL SSDSC2KB480', serial: 'X1' }),
    disk('sdc', 2000, { rotational: true }),
  ]
  assert.equal(nameOf(chooseRootDisk(disks, { model: 'intel' })), 'sdb')
  assert.equal(nameOf(chooseRootDisk(disks, { serial: 'X1' })), 'sdb')
  assert.equal(nameOf(chooseRootDisk(disks, { rotational: true })), 'sdc')
  assert.equal(nameOf(chooseRootDisk(disks, { min_size_gib: 100 })), 'sdb')
  assert.equal(nameOf(chooseRootDisk(disks, { size_gib: 2000 })), 'sdc')
  assert.equal(nameOf(chooseRootDisk(disks, { name: '/dev/sda' })), 'sda')
  assert.equal(nameOf(chooseRootDisk(disks, { name: 'sda', serial: 'X1' })), 'none')
})

test('a disk on USB is taken only when a hint names it', () => {
  const disks = [disk('sda', 16, { bus: 'usb' }), disk('sdb', 480)]
  assert.equal(nameOf(chooseRootDisk(disks)), 'sdb')
  assert.equal(nameOf(chooseRootDisk(disks, { name: 'sda' })), 'sda')
})

test('when none fits, the answer lists every disk and why it was not taken', () => {
  const choice = chooseRootDisk([disk('sda', 2), disk('sdb', 20)], { min_size_gib: 100 })
  assert.equal(choice.kind, 'none')
  assert.match(choice.problem, /sda \(2\.0 GiB, ata, .*less than 100 GiB; sdb \(20\.0 GiB.*less than 100 GiB/)
  const empty = chooseRootDisk([])
  assert.match(empty.kind === 'none' ? empty.problem : '', /no disks/)
})
