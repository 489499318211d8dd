/** Makes the config drive: the small ISO from which a tenant's image learns who it is (OpenStack's "config-2" format). */
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type Run, run } from './run.ts'

export type ConfigDrive = {
  /** cloud-init takes `uuid` as the identity of the instance: another one runs first-boot work again. */
  readonly meta_data: { readonly uuid: string; readonly [key: string]: unknown }
  readonly user_data?: string | Buffer | undefined
  readonly network_data?: object | undefined
  readonly vendor_data?: object | undefined
}

export type ConfigDriveOptions = { readonly signal: AbortSignal; readonly run?: Run; readonly tmp_dir?: string }

/** OpenStack's limit for a config drive too. */
export const MAX_CONFIG_DRIVE_BYTES = 64 * 2 ** 20
export const CONFIG_DRIVE_LABEL = 'config-2'

/** The message says which part is too large. */
export class ConfigDriveTooLarge extends Error {
  override readonly name = 'ConfigDriveTooLarge'
}

/**
 * `latest`, and Liberty's version: the newest that cloud-init, cloudbase-init and Ignition all know and the first with
 * network_data.json.
 */
const VERSIONS = ['2015-10-15', 'latest']
/** 1980-01-01: the same drive made twice is the same bytes, so that a repeated write can be compared. */
const EPOCH_S = 315_532_800

/** The same input gives the same bytes. @throws {ConfigDriveTooLarge} */
export async function configDrive(drive: ConfigDrive, options: ConfigDriveOptions): Promise<Buffer> {
  const files = filesOf(drive)
  const sizes = [...files].map(([name, content]) => `${name} ${content.length}`)
  const total = VERSIONS.length * [...files.values()].reduce((sum, { length }) => sum + length, 0)
  if (total > MAX_CONFIG_DRIVE_BYTES) throw tooLarge(total, sizes)

  const dir = await mkdtemp(join(options.tmp_dir ?? tmpdir(), 'config-drive-')) // 0700: user data holds secrets
  try {
    const root = join(dir, 'root')
    for (const version of VERSIONS)
      for (const [name, content] of files) await writeOld(join(root, 'openstack', version, name), content)
    for (const version of VERSIONS) await utimes(join(root, 'openstack', version), EPOCH_S, EPOCH_S)
    for (const folder of [join(root, 'openstack'), root]) await utimes(folder, EPOCH_S, EPOCH_S)
    const iso = await makeIso(root, options)
    if (iso.length > MAX_CONFIG_DRIVE_BYTES) throw tooLarge(iso.length, sizes)
    return iso
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

function filesOf({ meta_data, user_data, network_data, vendor_data }: ConfigDrive): Map<string, Buffer> {
  const files = new Map([['meta_data.json', Buffer.from(JSON.stringify(meta_data))]])
  if (user_data !== undefined) files.set('user_data', Buffer.from(user_data))
  if (network_data !== undefined) files.set('network_data.json', Buffer.from(JSON.stringify(network_data)))
  if (vendor_data !== undefined) files.set('vendor_data.json', Buffer.from(JSON.stringify(vendor_data)))
  return files
}

async function makeIso(root: string, options: ConfigDriveOptions): Promise<Buffer> {
  const argv = [
    'xorriso',
    '-as',
    'mkisofs',
    '-quiet',
    '-R',
    '-J',
    '-uid',
    '0',
    '-gid',
    '0',
    '-V',
    CONFIG_DRIVE_LABEL,
    '-o',
    '-',
    root,
  ]
  const { code, stdout, stderr } = await (options.run ?? run)(argv, {
    signal: options.signal,
    keep_bytes: 2 * MAX_CONFIG_DRIVE_BYTES,
    env: { SOURCE_DATE_EPOCH: String(EPOCH_S), TZ: 'UTC' },
  })
  if (code !== 0) throw new Error(`xorriso could not make the config drive (exit code ${code}): ${stderr.slice(-500)}`)
  return stdout
}

async function writeOld(path: string, content: Buffer): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, content, { mode: 0o600 })
  await utimes(path, EPOCH_S, EPOCH_S)
}

function tooLarge(bytes: number, sizes: readonly string[]): ConfigDriveTooLarge {
  return new ConfigDriveTooLarge(
    `the config drive would have ${bytes} bytes, at most ${MAX_CONFIG_DRIVE_BYTES} are allowed; its files: ${sizes.join(', ')} bytes`,
  )
}
