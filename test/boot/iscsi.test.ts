/** Images over iSCSI, against a real target. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { IscsiError, type IscsiErrorCode, newChap, verifyImage, writeImage } from '../../src/boot/iscsi.ts'
import { type Run, run } from '../../src/boot/run.ts'
import { startTarget } from './tgt.ts'

const MIB = 2 ** 20
const deadline = () => AbortSignal.timeout(30_000)
const skip = spawnSync('tgtadm', ['--version']).error
  ? 'needs the Debian package tgt'
  : process.getuid?.() === 0
    ? false
    : 'needs root'

async function setup(t: TestContext, disk_bytes = 32 * MIB) {
  const dir = await mkdtemp(join(tmpdir(), 'iscsi-test-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const chap = newChap(randomBytes)
  const bytes = randomBytes(8 * MIB)
  const raw = join(dir, 'image, with a comma.raw')
  const path = join(dir, 'image.qcow2')
  await writeFile(raw, bytes)
  assert.equal(spawnSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]).status, 0)
  return { chap, bytes, raw, path, ...(await startTarget(t, dir, disk_bytes, chap)) }
}

const fails = (promise: Promise<unknown>, code: IscsiErrorCode, secret: string) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof IscsiError, String(error))
    assert.equal(error.code, code, error.message)
    assert.ok(!error.message.includes(secret))
    return true
  })

test('an image is written, converted on the way, and found the same when read back', { skip }, async (t) => {
  const { target, path, raw, disk, bytes } = await setup(t)
  const progress: number[] = []
  const onProgress = (part: number) => progress.push(part)
  await writeImage({ path, format: 'qcow2', target, signal: deadline(), onProgress })
  assert.ok((await readFile(disk)).subarray(0, bytes.length).equals(bytes))
  assert.equal(progress.at(-1), 1)
  assert.ok(progress.length > 1 && progress.every((part, i) => part > (progress[i - 1] ?? -1)))

  progress.length = 0
  for (const [file, format] of [
    [path, 'qcow2'],
    [raw, 'raw'],
  ] as const)
    await verifyImage({ path: file, format, target, virtual_bytes: bytes.length, signal: deadline(), onProgress })
  assert.ok(progress.includes(1))
  await writeImage({ path: raw, format: 'raw', target, signal: deadline() })
})

test('what lies on the disk beyond the image does not matter, a changed byte inside does', { skip }, async (t) => {
  const { target, path, disk, bytes, chap } = await setup(t)
  await writeImage({ path, format: 'qcow2', target, signal: deadline() })
  const file = await open(disk, 'r+')
  await file.write(Buffer.from('leftover'), 0, 8, 20 * MIB)
  const verify = () => verifyImage({ path, format: 'qcow2', target, virtual_bytes: bytes.length, signal: deadline() })
  await verify()
  await file.write(Buffer.from([(bytes[5 * MIB] ?? 0) ^ 1]), 0, 1, 5 * MIB)
  await file.close()
  await fails(verify(), 'mismatch', chap.secret)
})

test('wrong password, nobody there, disk too small: each is said as what it is', { skip }, async (t) => {
  const { target, path, chap } = await setup(t, 4 * MIB)
  const write = (more: object) =>
    writeImage({ path, format: 'qcow2', target: { ...target, ...more }, signal: deadline() })
  const wrong = newChap(randomBytes).secret
  await fails(write({ secret: wrong }), 'login-refused', wrong)
  await fails(write({ iqn: 'iqn.2026-01.test.bloomery:other' }), 'login-refused', chap.secret)
  await fails(write({ portal: '127.0.0.1:9' }), 'unreachable', chap.secret)
  await fails(write({}), 'disk-too-small', chap.secret)
})

test("the secret is in nobody's command line or environment while qemu-img runs", { skip }, async (t) => {
  const { target, path, chap, pause, resume } = await setup(t)
  const seen: string[] = []
  const spying: Run = (argv, options) => {
    seen.push(argv.join(' '), JSON.stringify(options.env ?? {}))
    return run(argv, options)
  }
  pause()
  const writing = writeImage({ path, format: 'qcow2', target, signal: deadline(), run: spying })
  while (!(await processesWith(target.portal)).length) await new Promise((next) => setImmediate(next))
  for (const text of await processesWith(target.portal)) assert.ok(!text.includes(chap.secret))
  resume()
  await writing
  assert.ok(seen.length > 0 && !seen.join().includes(chap.secret))
})

test('a silent target is given up, an abort ends the writer, and neither leaves a process behind', {
  skip,
}, async (t) => {
  const { target, path, chap, pause } = await setup(t)
  pause()
  await fails(writeImage({ path, format: 'qcow2', target, signal: deadline(), stall_ms: 300 }), 'stalled', chap.secret)
  assert.deepEqual(await processesWith(target.portal), [])
  const impatient = new AbortController()
  const writing = writeImage({ path, format: 'qcow2', target, signal: impatient.signal })
  impatient.abort(new Error('enough'))
  await assert.rejects(writing, /enough/)
  assert.deepEqual(await processesWith(target.portal), [])
})

test('a target that dies in the middle is an error of the write', { skip }, async (t) => {
  const { target, path, chap, kill } = await setup(t)
  const killed = Promise.withResolvers<void>()
  const onProgress = () => killed.resolve(kill())
  const writing = writeImage({ path, format: 'qcow2', target, signal: deadline(), stall_ms: 1_000, onProgress })
  await assert.rejects(writing, (error) => {
    assert.ok(error instanceof IscsiError && ['unreachable', 'stalled', 'failed'].includes(error.code), String(error))
    assert.ok(!error.message.includes(chap.secret))
    return true
  })
  await killed.promise
  assert.deepEqual(await processesWith(target.portal), [])
})

test('nothing that is not a target becomes an option of qemu-img', async () => {
  const target = { portal: '127.0.0.1:3260', iqn: 'iqn.2026-01.a:b', lun: 0, user: 'u', secret: 's' }
  for (const bad of [
    { portal: '127.0.0.1:1,file.x=y' },
    { iqn: 'iqn.2026-01.a:b,file.x=y' },
    { user: 'u,x' },
    { lun: -1 },
  ])
    await assert.rejects(
      writeImage({ path: '/none', format: 'raw', target: { ...target, ...bad }, signal: deadline() }),
      TypeError,
    )
})

test('every attempt has CHAP credentials of its own', () => {
  const [a, b] = [newChap(randomBytes), newChap(randomBytes)]
  assert.match(a.secret, /^[0-9a-f]{32}$/)
  assert.notEqual(a.secret, b.secret)
})

/** Command lines and environments of the processes that know this word. */
async function processesWith(word: string): Promise<string[]> {
  const pids = spawnSync('pgrep', ['-f', '-x', `qemu-img .*${word}.*`], { encoding: 'utf8' })
    .stdout.trim()
    .split('\n')
  const texts = pids.filter(Boolean).map(async (pid) => {
    const read = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')
    return (await read('cmdline')) + (await read('environ'))
  })
  return Promise.all(texts)
}
