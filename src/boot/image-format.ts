/** Finds out what an image file really is, before qemu-img is let near it: an image can name other files, and qemu-img opens them. */
import { open } from 'node:fs/promises'
import { type Run, run } from './run.ts'

export const IMAGE_FORMATS = ['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const
export type ImageFormat = (typeof IMAGE_FORMATS)[number]

/** What is wrong with an image; the message is for an operator. */
export class BadImage extends Error {
  override readonly name = 'BadImage'
}

/** As much as any check below looks at. */
const HEAD_BYTES = 1_048_576
/** A crafted image must not take the machine with it: qemu-img's address space, and its processor time. */
const INSPECT_LIMITS = ['prlimit', '--as=2147483648', '--cpu=30']
const INSPECT_DEADLINE_MS = 30_000

/**
 * The virtual size of an image that consists of this one file.
 * @throws {BadImage} when it is of another format, damaged, encrypted, or refers to any other file
 */
export async function inspectImage(
  path: string,
  format: ImageFormat,
  signal: AbortSignal,
  tool: Run = run,
): Promise<number> {
  const head = await readHead(path)
  const found = formatOf(head)
  if (found !== format) throw new BadImage(`the image is declared as ${format}, its content is ${found}`)
  const reference = referenceIn(head, format)
  if (reference) throw new BadImage(`the image is not complete in itself and will not be opened: ${reference}`)

  const { code, stdout, stderr } = await tool(
    [...INSPECT_LIMITS, 'qemu-img', 'info', '--output', 'json', imageOptions(path, format)],
    { signal: AbortSignal.any([signal, AbortSignal.timeout(INSPECT_DEADLINE_MS)]) },
  )
  if (code !== 0)
    throw new BadImage(`qemu-img cannot read the image as ${format}: ${stderr.split('\n').at(-1)?.slice(0, 300)}`)
  return checked(JSON.parse(stdout.toString('utf8')))
}

/** An explicit driver, so that nothing is guessed from the content, and no way to a backing file. */
export function imageOptions(path: string, format: ImageFormat): string {
  const file = { driver: 'file', filename: path, locking: 'off' }
  const backing = format === 'qcow2' || format === 'vmdk' ? { backing: null } : {}
  return `json:${JSON.stringify({ driver: format, 'read-only': true, ...backing, file })}`
}

export function formatOf(head: Buffer): ImageFormat | 'another format' {
  const at = (offset: number, text: string) => head.toString('latin1', offset, offset + text.length) === text
  if (at(0, 'QFI\xfb')) return 'qcow2'
  if (at(0, 'KDMV') || at(0, 'COWD') || /^\s*# Disk DescriptorFile/i.test(head.toString('latin1', 0, 64))) return 'vmdk'
  if (at(0, 'vhdxfile')) return 'vhdx'
  if (at(0, 'conectix')) return 'vpc'
  if (head.length > 0x44 && head.readUInt32LE(0x40) === 0xbeda107f) return 'vdi'
  if (
    at(0, 'LUKS\xba\xbe') ||
    at(0, 'QED\0') ||
    at(0, 'WithoutFreeSpace') ||
    at(0, '\x1f\x8b') ||
    at(0, '\x28\xb5\x2f\xfd')
  )
    return 'another format'
  return 'raw'
}

function referenceIn(head: Buffer, format: ImageFormat): string | null {
  if (format === 'qcow2') return qcow2Reference(head)
  if (format === 'vmdk') return vmdkReference(head)
  if (format === 'vpc' && head.length >= 64 && head.readUInt32BE(60) === 4) return 'it is a differencing disk'
  return null
}

/** @see the QCOW2 specification, docs/interop/qcow2.txt in QEMU */
function qcow2Reference(head: Buffer): string | null {
  if (head.length < 72) return 'its header is cut short'
  if (head.readBigUInt64BE(8) !== 0n) return 'it has a backing file'
  if (head.readUInt32BE(32) !== 0) return 'it is encrypted'
  const version = head.readUInt32BE(4)
  if (version >= 3 && (head.length < 104 || head.readBigUInt64BE(72) & 4n)) return 'its data are in an external file'
  return null
}

/** Only VMDKs that are one file; a descriptor elsewhere, or one that names a parent, is refused. */
function vmdkReference(head: Buffer): string | null {
  if (head.toString('latin1', 0, 4) !== 'KDMV' || head.length < 512)
    return 'it is a descriptor of other files, or an old kind of VMDK'
  // With a capacity of 0 QEMU reads the extents from the descriptor instead.
  if (head.readBigUInt64LE(12) === 0n) return 'its descriptor may name other files'
  const text = head.toString('latin1')
  if (text.includes('parentFileNameHint')) return 'it has a parent image'
  const type = /createType="([^"]*)"/.exec(text)?.[1]
  if (type !== 'monolithicSparse' && type !== 'streamOptimized') return `it is of the kind ${type ?? 'unknown'}`
  return null
}

type Info = {
  readonly 'virtual-size'?: number
  readonly filename?: string
  readonly encrypted?: boolean
  readonly 'backing-filename'?: string
  readonly 'format-specific'?: {
    readonly data?: { readonly corrupt?: boolean; readonly 'data-file'?: string; readonly extents?: unknown[] }
  }
}

/** The second lock on the same door: what QEMU itself found. */
function checked(info: Info): number {
  const data = info['format-specific']?.data
  if (info['backing-filename'] !== undefined || data?.['data-file'] !== undefined || (data?.extents?.length ?? 1) !== 1)
    throw new BadImage('the image refers to other files and will not be opened')
  if (info.encrypted) throw new BadImage('the image is encrypted')
  if (data?.corrupt) throw new BadImage('the image is marked as corrupt: repair it with qemu-img check')
  const size = info['virtual-size']
  if (size === undefined || !Number.isSafeInteger(size) || size <= 0) throw new BadImage('the image is empty')
  return size
}

async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
