/** The config drive: read back by the tools that a tenant's system has. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { ConfigDriveTooLarge, configDrive } from '../../src/boot/config-drive.ts'
import { run } from '../../src/boot/run.ts'

const signal = AbortSignal.timeout(30_000)
const drive = {
  meta_data: { uuid: '6c616200-0000-4000-8000-000000000001', hostname: 'web-1', meta: { role: 'web' } },
  user_data: '#cloud-config\nhostname: web-1\n',
  network_data: { links: [], networks: [], services: [] },
}

test('the drive is an ISO labelled config-2 with the files of OpenStack, in a dated version and in latest', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'drive-test-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const iso = await configDrive(drive, { signal })
  assert.equal(iso.toString('latin1', 32_769, 32_774), 'CD001')
  assert.equal(iso.toString('latin1', 32_808, 32_840).trim(), 'config-2')
  await writeFile(join(dir, 'iso'), iso)
  for (const version of ['latest', '2015-10-15']) {
    const out = join(dir, version)
    const { code, stderr } = await run(
      ['xorriso', '-osirrox', 'on', '-indev', join(dir, 'iso'), '-extract', `/openstack/${version}`, out],
      { signal },
    )
    assert.equal(code, 0, stderr)
    assert.deepEqual(JSON.parse(await readFile(join(out, 'meta_data.json'), 'utf8')), drive.meta_data)
    assert.equal(await readFile(join(out, 'user_data'), 'utf8'), drive.user_data)
    assert.deepEqual(JSON.parse(await readFile(join(out, 'network_data.json'), 'utf8')), drive.network_data)
  }
})

test('the same drive made at another time is the same bytes', async () => {
  const first = await configDrive(drive, { signal })
  await delay(1_100) // an ISO counts in seconds: the clock itself is under test
  assert.ok(first.equals(await configDrive(drive, { signal })))
})

test('a drive that is too large is refused, and the answer says which file it is', async () => {
  await assert.rejects(configDrive({ ...drive, user_data: Buffer.alloc(40 * 2 ** 20) }, { signal }), (error) => {
    assert.ok(error instanceof ConfigDriveTooLarge)
    assert.match(error.message, /user_data 41943040/)
    return true
  })
})

test('nothing of it stays behind in the temporary folder', async (t) => {
  const tmp_dir = await mkdtemp(join(tmpdir(), 'drive-test-'))
  t.after(() => rm(tmp_dir, { recursive: true, force: true }))
  await configDrive(drive, { signal, tmp_dir })
  await assert.rejects(configDrive(drive, { signal, tmp_dir, run: () => Promise.reject(new Error('no xorriso')) }))
  assert.deepEqual(await import('node:fs/promises').then(({ readdir }) => readdir(tmp_dir)), [])
})
