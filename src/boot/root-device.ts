/** Chooses the disk that an image is written to, so that two runs choose the same and a person can see why. */

export type Disk = {
  readonly name: string
  readonly bytes: number
  readonly rotational: boolean
  /** Empty when the disk has none to tell. */
  readonly serial: string
  readonly model: string
  readonly bus: string
}

/** All given ones must hold. A model matches as a part, whatever its case; sizes are in whole GiB, as people say them. */
export type RootHints = {
  readonly name?: string | undefined
  readonly serial?: string | undefined
  readonly model?: string | undefined
  readonly rotational?: boolean | undefined
  readonly size_gib?: number | undefined
  readonly min_size_gib?: number | undefined
}

export type RootChoice =
  | { readonly kind: 'chosen'; readonly disk: Disk }
  | { readonly kind: 'none'; readonly problem: string }

/** Smaller ones are boot media and card readers. */
export const SMALLEST_ROOT_GIB = 4
const GIB = 2 ** 30

/** The smallest that fits; of equals the first by name. */
export function chooseRootDisk(disks: readonly Disk[], hints: RootHints = {}): RootChoice {
  const judged = disks.map((disk) => ({ disk, why_not: objection(disk, hints) }))
  const [first] = judged
    .filter(({ why_not }) => why_not === null)
    .map(({ disk }) => disk)
    .sort((a, b) => a.bytes - b.bytes || a.name.localeCompare(b.name, 'en', { numeric: true }))
  if (first) return { kind: 'chosen', disk: first }
  const list = judged.map(({ disk, why_not }) => `${disk.name} (${describe(disk)}): ${why_not}`)
  return {
    kind: 'none',
    problem:
      list.length === 0
        ? 'the node has no disks: the ramdisk lacks the driver of its storage controller, or there are none'
        : `no disk fits as root device. ${list.join('; ')}. Correct the hints of the node (root_device) or inspect it again.`,
  }
}

function objection(disk: Disk, hints: RootHints): string | null {
  const gib = Math.floor(disk.bytes / GIB)
  const { name, serial, model, rotational, size_gib, min_size_gib } = hints
  if (name !== undefined && bare(disk.name) !== bare(name)) return `its name is not ${bare(name)}`
  if (serial !== undefined && disk.serial !== serial) return `its serial is not ${serial}`
  if (model !== undefined && !disk.model.toLowerCase().includes(model.toLowerCase())) return `its model is not ${model}`
  if (rotational !== undefined && disk.rotational !== rotational)
    return rotational ? 'it does not rotate' : 'it rotates'
  if (size_gib !== undefined && gib !== size_gib) return `it has not ${size_gib} GiB`
  if (min_size_gib !== undefined && disk.bytes < min_size_gib * GIB) return `it has less than ${min_size_gib} GiB`
  if (disk.bytes <= SMALLEST_ROOT_GIB * GIB) return `it is not larger than ${SMALLEST_ROOT_GIB} GiB`
  // Writing to somebody's USB stick, or to a BMC's virtual medium, cannot be taken back; a hint makes it a decision.
  if (disk.bus === 'usb' && name === undefined && serial === undefined) return 'it is on USB and no hint names it'
  return null
}

function bare(name: string): string {
  return name.replace(/^\/dev\//, '')
}

function describe({ bytes, rotational, serial, model, bus }: Disk): string {
  const kind = rotational ? 'rotating' : 'not rotating'
  return `${(bytes / GIB).toFixed(1)} GiB, ${bus}, ${kind}, model ${model || 'unknown'}, serial ${serial || 'none'}`
}
