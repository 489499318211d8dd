/** Plans a small partition at the end of a freshly written disk for the config drive, and touches no other partition. */
import { planGpt } from './partitions-gpt.ts'
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
} from './partitions-plan.ts'

export type { PartitionPlan, PartitionQuestion } from './partitions-plan.ts'

/** How much of the disk's beginning a plan needs. A GPT of 128 entries takes 17 KiB; there is room for ones eight times as long. */
export const HEAD_BYTES = 262_144

/** An MBR counts sectors in 32 bits. */
const MBR_LIMIT_SECTORS = 0xffff_ffff
const MBR_ENTRIES = 446
const EMPTY = 0x00
const GPT_PROTECTIVE = 0xee
/**
 * "CHRP ISO-9660": true, and so rare that an entry of this type at the end of the disk is the one of an earlier plan.
 * Readers of a config drive look for the file system's label and not for the type.
 */
const CONFIG_TYPE = 0x96
/** How far from the end of the disk our own partition may end: its start is aligned to 1 MiB. */
const OURS_ENDS_WITHIN_SECTORS = 4096

type Entry = Extent & { readonly index: number; readonly status: number; readonly type: number }

/** Safe to repeat: a partition of an earlier plan at the end of the disk is replaced. */
export function planConfigPartition(question: PartitionQuestion): PartitionPlan {
  const { head, sector_bytes } = question
  if (sector_bytes !== SECTOR_BYTES)
    return problem(
      'sector-size',
      `the disk has sectors of ${sector_bytes} bytes; config drives are written to disks with ${SECTOR_BYTES} only`,
    )
  if (head.length < 2 * SECTOR_BYTES || head.readUInt16LE(510) !== 0xaa55)
    return problem('no-table', 'the image has no partition table: no MBR signature in its first sector')
  const entries = mbrEntries(head)
  if (entries.some(({ status }) => status !== 0x00 && status !== 0x80))
    return problem(
      'damaged',
      'the first sector has an MBR signature and no valid partition entries (a file system without a partition table?)',
    )
  if (entries.some(({ type }) => type === GPT_PROTECTIVE)) return planGpt(question, gptMbr(head, entries, question))
  if (entries.every(({ type }) => type === EMPTY))
    return problem('no-table', 'the partition table of the image is empty')
  return planMbr(question, entries)
}

function planMbr({ head, disk_bytes, iso_bytes }: PartitionQuestion, entries: readonly Entry[]): PartitionPlan {
  const disk_sectors = Math.floor(disk_bytes / SECTOR_BYTES)
  const limit = Math.min(disk_sectors, MBR_LIMIT_SECTORS)
  const ours = entries.find(
    ({ type, end }) => type === CONFIG_TYPE && end <= limit && end > limit - OURS_ENDS_WITHIN_SECTORS,
  )
  const others = entries.filter((entry) => entry.type !== EMPTY && entry !== ours)
  if (others.some(({ start, end }) => start === 0 || end <= start || end > disk_sectors))
    return problem('damaged', `a partition of the image does not lie on the disk of ${disk_sectors} sectors`)
  const slot = ours ?? entries.find(({ type }) => type === EMPTY)
  if (!slot)
    return problem(
      'no-free-slot',
      'all four primary partitions of the MBR are taken: the image has no slot for a config drive',
    )
  const place = placeAtEnd(limit, iso_bytes, others)
  if (!place) return problem('overlap', noRoom(iso_bytes, others, limit))

  const sector = Buffer.from(head.subarray(0, SECTOR_BYTES))
  const entry = sector.subarray(MBR_ENTRIES + slot.index * 16, MBR_ENTRIES + slot.index * 16 + 16)
  entry.set([0x00, 0xfe, 0xff, 0xff, CONFIG_TYPE, 0xfe, 0xff, 0xff]) // CHS "too far": the LBA fields count
  entry.writeUInt32LE(place.start, 8)
  entry.writeUInt32LE(place.end - place.start, 12)
  return {
    kind: 'plan',
    table: 'mbr',
    partition: partitionAt(slot.index + 1, place),
    writes: [{ offset: 0, bytes: sector }],
  }
}

function mbrEntries(head: Buffer): Entry[] {
  return [0, 1, 2, 3].map((index) => {
    const at = MBR_ENTRIES + index * 16
    const start = u32(head, at + 8)
    return { index, status: head[at] ?? 0, type: head[at + 4] ?? 0, start, end: start + u32(head, at + 12) }
  })
}

/** UEFI 2.10 §5.2.3: the protective entry covers the disk. In a hybrid MBR it has neighbours, and is left as it is. */
function gptMbr(head: Buffer, entries: readonly Entry[], { disk_bytes }: PartitionQuestion): Buffer {
  const sector = Buffer.from(head.subarray(0, SECTOR_BYTES))
  const [only, ...more] = entries.filter(({ type }) => type !== EMPTY)
  if (only && more.length === 0)
    sector.writeUInt32LE(
      Math.min(Math.floor(disk_bytes / SECTOR_BYTES) - 1, 0xffff_ffff),
      MBR_ENTRIES + only.index * 16 + 12,
    )
  return sector
}
