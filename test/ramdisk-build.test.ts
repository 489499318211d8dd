/** The recipe of the ramdisk: small, and the same bytes from the same packages. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { promisify } from 'node:util'

const RAMDISK_LIMIT_BYTES = 4_000_000
const DEADLINE_MS = 900_000 // the first time everything is downloaded
const script = join(import.meta.dirname, '../deploy/ramdisk/build.sh')
const cache = join(import.meta.dirname, '../.cache/ramdisk')

type Manifest = {
  readonly built_from: string
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>
}

it('is small, and the same bytes whenever and wherever it is built', { timeout: DEADLINE_MS }, async (t) => {
  const elsewhere = await mkdtemp(join(tmpdir(), 'ramdisk-build-'))
  t.after(() => rm(elsewhere, { recursive: true, force: true }))
  const one = await build(join(cache, 'cloud-amd64'))
  const two = await build(elsewhere, '--again')
  assert.deepEqual(two, one)
  assert.ok((one.files['ramdisk.img']?.bytes ?? Number.POSITIVE_INFINITY) <= RAMDISK_LIMIT_BYTES)
})

async function build(out: string, ...args: string[]): Promise<Manifest> {
  await promisify(execFile)(script, ['--flavour', 'cloud-amd64', '--cache', cache, '--out', out, ...args])
  return JSON.parse(await readFile(join(out, 'manifest.json'), 'utf8')) as Manifest
}
