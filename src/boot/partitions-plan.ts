/** What a plan for the config drive's partition is, and where on a disk it may go: common to MBR and GPT. */

export type PartitionQuestion = {
  /** The first `HEAD_BYTES` of the disk, or all of a smaller one. */
  readonly head: Buffer
  readonly disk_bytes: number
  readonly iso_bytes: number
  readonly sector_bytes: number
}

export type Write = { readonly offset: number; readonly bytes: Buffer }

export type PartitionPlan =
  | {
      readonly kind: 'plan'
      readonly table: 'mbr' | 'gpt'
      /** Where the ISO goes: write it first, then `writes` in this order, so that a table never names what is not there. */
      readonly partition: { readonly number: number; readonly offset: number; readonly length: number }
      readonly writes: readonly Write[]
    }
  | { readonly kind: 'problem'; readonly problem: PartitionProblem; readonly message: string }

export const PARTITION_PROBLEMS = ['no-table', 'no-free-slot', 'overlap', 'damaged', 'sector-size'] as const
export type PartitionProblem = (typeof PARTITION_PROBLEMS)[number]

export const SECTOR_BYTES = 512
/** 1 MiB, as every partitioning tool of today aligns. */
const ALIGNMENT_SECTORS = 2048
/** Boot loaders live below. */
const FIRST_SECTOR = ALIGNMENT_SECTORS

/** In sectors; `end` is the first one after it. */
export type Extent = { readonly start: number; readonly end: number }

export function problem(kind: PartitionProblem, message: string): PartitionPlan {
  return { kind: 'problem', problem: kind, message }
}

/** The highest aligned place for the ISO below `limit` that is above all other partitions. */
export function placeAtEnd(limit: number, iso_bytes: number, others: readonly Extent[]): Extent | null {
  const length = Math.ceil(iso_bytes / SECTOR_BYTES)
  const start = aligned(limit - length)
  const taken = Math.max(FIRST_SECTOR, ...others.map(({ end }) => end))
  return length > 0 && start >= taken ? { start, end: start + length } : null
}

export function noRoom(iso_bytes: number, others: readonly Extent[], limit: number): string {
  const taken = Math.max(0, ...others.map(({ end }) => end))
  return `the config drive needs ${iso_bytes} bytes at the end of the disk; the image's last partition ends at sector ${taken} of ${limit}`
}

export function partitionAt(number: number, { start, end }: Extent) {
  return { number, offset: start * SECTOR_BYTES, length: (end - start) * SECTOR_BYTES }
}

export function u32(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at)
}

/** Sector numbers of real disks are far below 2^53; more than that is damage, and comes back as Infinity. */
export function u64(buffer: Buffer, at: number): number {
  const value = buffer.readBigUInt64LE(at)
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(value)
}

function aligned(sector: number): number {
  return Math.floor(sector / ALIGNMENT_SECTORS) * ALIGNMENT_SECTORS
}
