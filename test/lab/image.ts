/** The image that tests deploy: a small system that boots on BIOS and UEFI, reads its config drive and phones home. */

import { createHash } from 'node:crypto'
import { createReadStream, mkdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { run } from './run.ts'

const KERNEL_DEADLINE_MS = 300_000 // a download of 70 MB when it is not yet there
const BUILD_DEADLINE_MS = 120_000
const PACKAGES = ['busybox-static', 'syslinux', 'syslinux-common', 'systemd-boot-efi', 'mtools', 'qemu-utils', 'zstd']
// biome-ignore lint/suspicious/noTemplateCurlyInString: it is dpkg-query's
const DPKG_FORMAT = '${Package} ${Version}\n'
const RECIPE = ['image.sh', 'image-init', 'image-lease'].map((name) => join(import.meta.dirname, name))
const KERNEL_RECIPE = join(import.meta.dirname, '../../deploy/ramdisk/kernel.sh')

export type ImageOptions = {
  readonly table?: 'mbr' | 'gpt'
  /** The cloud kernel starts seconds sooner, and knows virtio and NVMe only: AHCI disks and e1000 need `amd64`. */
  readonly kernel?: 'cloud-amd64' | 'amd64'
}
export type ImageFile = { readonly path: string; readonly sha256: string; readonly bytes: number }
export type DemoImage = {
  readonly raw: ImageFile
  readonly qcow2: ImageFile
  readonly gz: ImageFile
  readonly zst: ImageFile
  /** The size of the disk that is in it. */
  readonly virtual_bytes: number
}

/**
 * Builds the image, or takes it from the cache if its inputs have not changed. May be called by several processes at once.
 * The system says on its console: `IMAGE-BOOTED-FROM-DISK`, `CONFIG-DRIVE` or `NO-CONFIG-DRIVE`, `HOSTNAME`, `USER-DATA <sha256>`,
 * `ADDRESS`, `PHONED-HOME` (when the meta data's `meta.phone_home_url` is set: a POST of `{instance_id, hostname, serial, ip, boot}`),
 * `READY`, and `POWER-BUTTON`.
 */
export async function buildDemoImage(cacheDir: string, options: ImageOptions = {}): Promise<DemoImage> {
  const { table = 'mbr', kernel = 'cloud-amd64' } = options
  const cache = resolve(cacheDir)
  mkdirSync(cache, { recursive: true })
  const kernelDir = (await run([KERNEL_RECIPE, kernel, cache], { deadline_ms: KERNEL_DEADLINE_MS })).trim()
  const versions = await run(['dpkg-query', '-W', '-f', DPKG_FORMAT, ...PACKAGES])
  const key = createHash('sha256').update(table).update(basename(kernelDir)).update(versions)
  for (const file of RECIPE) key.update(readFileSync(file))
  const out = join(cache, `demo-${table}-${key.digest('hex').slice(0, 16)}`)
  const build = [RECIPE[0] ?? '', table, kernelDir, out]
  await run(['flock', join(cache, 'demo.lock'), ...build], { deadline_ms: BUILD_DEADLINE_MS })
  const [raw, qcow2, gz, zst] = await Promise.all([
    describe(join(out, 'demo.raw')),
    describe(join(out, 'demo.qcow2')),
    describe(join(out, 'demo.raw.gz')),
    describe(join(out, 'demo.raw.zst')),
  ])
  return { raw, qcow2, gz, zst, virtual_bytes: raw.bytes }
}

async function describe(path: string): Promise<ImageFile> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return { path, sha256: hash.digest('hex'), bytes: statSync(path).size }
}
