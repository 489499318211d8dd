/** The GPT half of planConfigPartition: one more entry, and the backup table moved to the real end of the disk. UEFI 2.10 §5.3 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import {
  type Extent,
  noRoom,
  type PartitionPlan,
  type PartitionQuestion,
  partitionAt,
  placeAtEnd,
  problem,
  SECTOR_BYTES,
  u32,
  u64,
} from './partitions-plan.ts'

const LINUX_DATA = Buffer.from('af3dc60f838472478e793d69d8477de4', 'hex') // 0FC63DAF-8483-4772-8E79-3D69D8477DE4
const NAME = Buffer.from('config-2', 'utf16le')
const MAX_ENTRIES = 1024
const MAX_ENTRY_BYTES = 4096

type Gpt = {
  readonly header: Buffer
  readonly entries: Buffer
  readonly entry_bytes: number
  readonly entries_sectors: number
  readonly entries_lba: number
}

export function planGpt({ head, disk_bytes, iso_bytes }: PartitionQuestion, protective_mbr: Buffer): PartitionPlan {
  const gpt = readGpt(head)
  if (typeof gpt === 'string') return problem('damaged', `the GPT of the image is damaged: ${gpt}`)
  const { entry_bytes, entries_lba, entries_sectors } = gpt
  const last_lba = Math.floor(disk_bytes / SECTOR_BYTES) - 1
  const backup_lba = last_lba - entries_sectors
  const first_usable = u64(gpt.header, 40)

  const slots = Array.from({ length: gpt.entries.length / entry_bytes }, (_, index) => {
    const bytes = gpt.entries.subarray(index * entry_bytes, (index + 1) * entry_bytes)
    const used = bytes.subarray(0, 16).some((byte) => byte !== 0)
    return { index, used, named: isOurs(bytes), start: u64(bytes, 32), end: u64(bytes, 40) + 1 }
  })
  const ours = slots.find(({ used, named, end }) => used && named && end > backup_lba - 4096)
  const others = slots.filter((slot) => slot.used && slot !== ours)
  if (others.some(({ start, end }) => start < first_usable || end <= start))
    return problem(
      'damaged',
      'the GPT of the image is damaged: a partition ends before it starts, or lies in the table',
    )
  if (others.some(({ end }) => end > last_lba + 1))
    return problem('damaged', `a partition of the image does not lie on the disk of ${last_lba + 1} sectors`)
  const slot = ours ?? slots.find(({ used }) => !used)
  if (!slot)
    return problem('no-free-slot', `all ${slots.length} entries of the GPT are taken: no slot for a config drive`)
  const place = placeAtEnd(backup_lba, iso_bytes, others)
  if (!place || place.start < first_usable) return problem('overlap', noRoom(iso_bytes, others, backup_lba))

  const entries = Buffer.from(gpt.entries)
  writeEntry(entries.subarray(slot.index * entry_bytes, (slot.index + 1) * entry_bytes), place, gpt.header)
  const padded = Buffer.alloc(entries_sectors * SECTOR_BYTES)
  entries.copy(padded)
  const at = { last_usable: backup_lba - 1, entries_crc: crc32(entries) }
  const backup = sealed(gpt.header, { ...at, own: last_lba, other: 1, entries_lba: backup_lba })
  const primary = sealed(gpt.header, { ...at, own: 1, other: last_lba, entries_lba })
  return {
    kind: 'plan',
    table: 'gpt',
    partition: partitionAt(slot.index + 1, place),
    // The backup first: cut short at any point, one table of the two is whole.
    writes: [
      { offset: backup_lba * SECTOR_BYTES, bytes: padded },
      { offset: last_lba * SECTOR_BYTES, bytes: backup },
      { offset: entries_lba * SECTOR_BYTES, bytes: padded },
      { offset: SECTOR_BYTES, bytes: primary },
      { offset: 0, bytes: protective_mbr },
    ],
  }
}

/** A string says what is wrong with it. */
function readGpt(head: Buffer): Gpt | string {
  const header = head.subarray(SECTOR_BYTES, 2 * SECTOR_BYTES)
  if (header.toString('latin1', 0, 8) !== 'EFI PART') return 'there is a protective MBR and no GPT after it'
  const header_bytes = u32(header, 12)
  if (header_bytes < 92 || header_bytes > SECTOR_BYTES) return `its header claims ${header_bytes} bytes`
  if (headerCrc(header, header_bytes) !== u32(header, 16)) return 'the checksum of its header is wrong'
  const entries_lba = u64(header, 72)
  const count = u32(header, 80)
  const entry_bytes = u32(header, 84)
  if (count > MAX_ENTRIES || entry_bytes > MAX_ENTRY_BYTES || entry_bytes < 128 || entry_bytes % 8 !== 0)
    return `it has ${count} entries of ${entry_bytes} bytes`
  const start = entries_lba * SECTOR_BYTES
  if (entries_lba < 2 || start + count * entry_bytes > head.length) return `its entries are at sector ${entries_lba}`
  const entries = head.subarray(start, start + count * entry_bytes)
  if (crc32(entries) !== u32(header, 88)) return 'the checksum of its entries is wrong'
  return { header, entries, entry_bytes, entries_lba, entries_sectors: Math.ceil(entries.length / SECTOR_BYTES) }
}

function writeEntry(entry: Buffer, { start, end }: Extent, header: Buffer): void {
  entry.fill(0)
  LINUX_DATA.copy(entry, 0)
  // Its GUID comes from the disk's, so that the same plan made twice is the same bytes. UUID version 8, RFC 9562 §5.8
  const guid = createHash('sha256').update(header.subarray(56, 72)).update(NAME).digest().subarray(0, 16)
  guid[7] = ((guid[7] ?? 0) & 0x0f) | 0x80 // the third group is little-endian in a GPT
  guid[8] = ((guid[8] ?? 0) & 0x3f) | 0x80
  guid.copy(entry, 16)
  entry.writeBigUInt64LE(BigInt(start), 32)
  entry.writeBigUInt64LE(BigInt(end - 1), 40)
  NAME.copy(entry, 56)
}

function isOurs(entry: Buffer): boolean {
  return entry.subarray(56, 56 + NAME.length + 2).equals(Buffer.concat([NAME, Buffer.alloc(2)]))
}

type Placement = {
  readonly own: number
  readonly other: number
  readonly entries_lba: number
  readonly last_usable: number
  readonly entries_crc: number
}

function sealed(template: Buffer, { own, other, entries_lba, last_usable, entries_crc }: Placement): Buffer {
  const header = Buffer.from(template)
  header.writeBigUInt64LE(BigInt(own), 24)
  header.writeBigUInt64LE(BigInt(other), 32)
  header.writeBigUInt64LE(BigInt(last_usable), 48)
  header.writeBigUInt64LE(BigInt(entries_lba), 72)
  header.writeUInt32LE(entries_crc, 88)
  header.writeUInt32LE(headerCrc(header, u32(header, 12)), 16)
  return header
}

function headerCrc(header: Buffer, header_bytes: number): number {
  const copy = Buffer.from(header.subarray(0, header_bytes))
  copy.writeUInt32LE(0, 16)
  return crc32(copy)
}
