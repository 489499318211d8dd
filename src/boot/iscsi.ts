/** Writes an image straight onto the disk that a node exports over iSCSI, and reads it back: user space only, by qemu-img. */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ImageFormat, imageOptions } from './image-format.ts'
import { type Run, run } from './run.ts'

export type Chap = { readonly user: string; readonly secret: string }
export type IscsiTarget = Chap & {
  /** Address and port: 10.77.0.11:3260 */
  readonly portal: string
  readonly iqn: string
  readonly lun: number
}

export type TransferOptions = {
  readonly path: string
  readonly format: ImageFormat
  readonly target: IscsiTarget
  readonly signal: AbortSignal
  /** From 0 to 1. */
  readonly onProgress?: (part: number) => void
  /** Without progress for this long the target is given up. */
  readonly stall_ms?: number
  readonly run?: Run
}

export const ISCSI_ERROR_CODES = [
  'unreachable',
  'login-refused',
  'stalled',
  'disk-too-small',
  'mismatch',
  'failed',
] as const
export type IscsiErrorCode = (typeof ISCSI_ERROR_CODES)[number]

/** The message is for an operator, and never has the CHAP secret in it. */
export class IscsiError extends Error {
  override readonly name = 'IscsiError'
  readonly code: IscsiErrorCode
  constructor(code: IscsiErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** libiscsi reconnects for ever by itself. One per cent of a large image on a slow disk takes its time. */
const STALL_MS = 180_000
/** For one SCSI command; without it a silent target holds qemu-img until the stall deadline. */
const COMMAND_TIMEOUT_S = 60
const PORTAL = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\]):\d{1,5}$/i
/** RFC 3720 §3.2.6. */
const IQN = /^iqn\.\d{4}-\d{2}\.[a-z0-9.-]+(:[A-Za-z0-9.:-]+)?$/
const USER = /^[A-Za-z0-9._-]{1,64}$/

/** Safe to repeat: every byte of the image is written again. Resolves once the target has flushed its cache. @throws {IscsiError} */
export async function writeImage(options: TransferOptions): Promise<void> {
  // Not qemu-img's default cache mode, "unsafe", which never asks the disk to flush.
  const argv = ['convert', '-n', '-p', '-t', 'writeback', imageOptions(options.path, options.format)]
  const { code, stderr } = await transfer(options, [...argv, '--target-image-opts', targetOptions(options.target)])
  if (code !== 0) throw failure('writing the image to', options.target, stderr)
}

/** Reads the disk back and compares it with the image, up to the image's size: what lies beyond is not ours. @throws {IscsiError} */
export async function verifyImage(options: TransferOptions & { readonly virtual_bytes: number }): Promise<void> {
  const { path, format, target, virtual_bytes } = options
  const size = Math.ceil(virtual_bytes / 512) * 512
  const image = `driver=${format},read-only=on,file.driver=file,file.locking=off,file.filename=${path.replaceAll(',', ',,')}`
  const argv = ['compare', '-p', '--image-opts', image, targetOptions(target, size)]
  const { code, stdout, stderr } = await transfer(options, argv)
  const mismatch = /Content mismatch at offset (\d+)/.exec(stdout.toString('latin1'))
  if (mismatch)
    throw new IscsiError(
      'mismatch',
      `the disk behind ${target.portal} differs from the image at byte ${mismatch[1]}: the disk, its cable or its controller loses data`,
    )
  if (code !== 0) throw failure('reading back the image from', target, stderr)
}

/** Fresh ones for every attempt. 32 hex digits: within every target's limits, and nothing that a shell could trip over. */
export function newChap(random: (bytes: number) => Buffer): Chap {
  return { user: `bloomery-${random(4).toString('hex')}`, secret: random(16).toString('hex') }
}

async function transfer(options: TransferOptions, argv: readonly string[]) {
  const { target, signal, onProgress, stall_ms = STALL_MS, run: tool = run } = options
  const secret = await secretFile(target.secret)
  const stall = new AbortController()
  const what = `nothing moved to or from ${target.portal} for ${stall_ms / 1000} s: the node is gone, or its disk hangs`
  const timer = setTimeout(() => stall.abort(new IscsiError('stalled', what)), stall_ms)
  let last = -1
  try {
    const [verb = '', ...rest] = argv
    return await tool(['qemu-img', verb, '--object', 'secret,id=chap,file=/dev/fd/3', ...rest], {
      signal: AbortSignal.any([signal, stall.signal]),
      fd3: secret.fd,
      onOutput(text) {
        const percent = Number([...text.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)?.[1] ?? Number.NaN)
        if (Number.isNaN(percent) || percent <= last) return
        last = percent
        timer.refresh()
        onProgress?.(Math.min(percent / 100, 1))
      },
    })
  } finally {
    clearTimeout(timer)
    await secret.close()
  }
}

function targetOptions({ portal, iqn, lun, user }: IscsiTarget, size?: number): string {
  if (!PORTAL.test(portal) || !IQN.test(iqn) || !Number.isInteger(lun) || lun < 0 || !USER.test(user))
    throw new TypeError(`not an iSCSI target: ${portal} ${iqn} LUN ${lun} user ${user}`)
  return [
    'driver=raw',
    ...(size === undefined ? [] : [`size=${size}`]),
    'file.driver=iscsi,file.transport=tcp',
    `file.portal=${portal},file.target=${iqn},file.lun=${lun}`,
    `file.timeout=${COMMAND_TIMEOUT_S},file.user=${user},file.password-secret=chap`,
  ].join(',')
}

/**
 * The secret in an open file that has no name any more: not in argv or the environment, where others can look, and
 * nothing is left on the disk however the service ends. (Not a pipe: Node's are sockets, which /dev/fd cannot open.)
 */
async function secretFile(secret: string): Promise<FileHandle> {
  const dir = await mkdtemp(join(tmpdir(), 'chap-'))
  try {
    const file = await open(join(dir, 'secret'), 'wx+', 0o600)
    await file.writeFile(secret)
    return file
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

const CAUSES: readonly (readonly [RegExp, IscsiErrorCode, string])[] = [
  [
    /Authentication failure|authentication failed/i,
    'login-refused',
    'it refused the CHAP user or password of this attempt',
  ],
  [
    /Target not found|does not exist|LOGIN_REJECT|login failed/i,
    'login-refused',
    'it does not know this target or its LUN',
  ],
  [/smaller than input file/i, 'disk-too-small', 'the disk is smaller than the image'],
  // libiscsi says "Can not reconnect right now" for a refused connection and for one that breaks off while logging in.
  [
    /reconnect|refused|No route|unreachable|timed? ?out|Failed to connect/i,
    'unreachable',
    'no connection, or it broke off',
  ],
]

function failure(doing: string, target: IscsiTarget, stderr: string): IscsiError {
  // Without our own options, which qemu-img repeats: they are in the message already, and have words of their own.
  const said = stderr
    .replaceAll(target.secret, '[secret]')
    .replace(/'driver=raw,[^']*'/g, 'the target')
    .slice(-600)
  const [, code, words] = CAUSES.find(([pattern]) => pattern.test(said)) ?? [null, 'failed' as const, 'qemu-img failed']
  return new IscsiError(code, `${doing} ${target.iqn} at ${target.portal}: ${words}. qemu-img says: ${said}`)
}
