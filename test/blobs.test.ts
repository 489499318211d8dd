/** Bulk by its hash: what is put is got, whole or not at all, and never from elsewhere. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { suite, test } from 'node:test'
import { BlobCorrupt, BlobsUnavailable, BlobTooLarge, openBlobs } from '../src/blobs.ts'
import { directory, smallDisk } from './support/store-directory.ts'

const LIMIT = { limit_bytes: 10_000_000 }
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const all = async (content: Readable | null) => Buffer.concat((await content?.toArray()) ?? assert.fail('no such blob'))

suite('the blob store', () => {
  test('gives back what was put, from a buffer or a stream, empty or large', async (t) => {
    const dir = directory(t)
    const blobs = await openBlobs(dir)
    for (const bytes of [randomBytes(1_000_000), Buffer.alloc(0), Buffer.from('a log line\n')]) {
      const blob = { sha256: sha256(bytes), bytes: bytes.length }
      assert.equal(await blobs.has(blob.sha256), false)
      assert.deepEqual(await blobs.put(bytes, LIMIT), blob)
      const pieces = [bytes.subarray(0, 1_000), bytes.subarray(1_000)]
      assert.deepEqual(await blobs.put(Readable.from(pieces), LIMIT), blob)
      assert.equal(await blobs.has(blob.sha256), true)
      assert.deepEqual(await all(await blobs.get(blob.sha256)), bytes)
      assert.deepEqual(await blobs.verify(blob.sha256), blob)
      assert.ok(existsSync(join(dir, blob.sha256.slice(0, 2), blob.sha256)))
    }
    assert.deepEqual(readdirSync(join(dir, 'incoming')), [])
  })

  test('has no blob that nobody put', async (t) => {
    const blobs = await openBlobs(directory(t))
    const none = 'a'.repeat(64)
    assert.deepEqual([await blobs.has(none), await blobs.get(none), await blobs.verify(none)], [false, null, null])
  })

  test('keeps nothing of what is too large, breaks off, or is aborted', async (t) => {
    const dir = directory(t)
    const blobs = await openBlobs(dir)
    const endless = async function* () {
      for (;;) yield randomBytes(65_536)
    }
    await assert.rejects(blobs.put(endless(), { limit_bytes: 300_000 }), BlobTooLarge)
    const broken = async function* () {
      yield randomBytes(10)
      throw new Error('the agent went away')
    }
    await assert.rejects(blobs.put(broken(), LIMIT), /went away/)
    await assert.rejects(blobs.put(endless(), { ...LIMIT, signal: AbortSignal.abort() }), /abort/i)
    assert.equal((await blobs.put(Buffer.alloc(300_000), { limit_bytes: 300_000 })).bytes, 300_000)
    assert.deepEqual(readdirSync(join(dir, 'incoming')), [])
  })

  test('tells a reader when the file is not what was put, and is whole again after another put', async (t) => {
    const dir = directory(t)
    const blobs = await openBlobs(dir)
    const bytes = randomBytes(200_000)
    const blob = await blobs.put(bytes, LIMIT)
    const path = join(dir, blob.sha256.slice(0, 2), blob.sha256)
    for (const damage of [() => truncateSync(path, 1_000), () => writeFileSync(path, randomBytes(200_000))]) {
      damage()
      await assert.rejects(all(await blobs.get(blob.sha256)), BlobCorrupt)
      await assert.rejects(blobs.verify(blob.sha256), BlobCorrupt)
      await blobs.put(bytes, LIMIT)
      assert.deepEqual(await blobs.verify(blob.sha256), blob)
    }
  })

  test('takes nothing for a hash that could name another file', async (t) => {
    const blobs = await openBlobs(directory(t))
    for (const name of ['', '../../etc/passwd', 'A'.repeat(64), `${'a'.repeat(63)}/`, 'a'.repeat(65)]) {
      await assert.rejects(blobs.get(name), TypeError)
      await assert.rejects(blobs.has(name), TypeError)
    }
  })

  test('sweeps out what a process that died was writing', async (t) => {
    const dir = directory(t)
    await openBlobs(dir)
    writeFileSync(join(dir, 'incoming', 'half'), 'half of it')
    await openBlobs(dir)
    assert.deepEqual(readdirSync(join(dir, 'incoming')), [])
  })

  test('keeps nothing on a full disk, and works again when there is room', async (t) => {
    const dir = smallDisk(t, 2)
    if (!dir) return t.skip('needs the right to mount a tmpfs')
    const blobs = await openBlobs(join(dir, 'blobs'))
    await assert.rejects(blobs.put(randomBytes(3_000_000), LIMIT), (error) => {
      assert.ok(error instanceof BlobsUnavailable && (error.cause as NodeJS.ErrnoException).code === 'ENOSPC')
      return true
    })
    assert.deepEqual(readdirSync(join(dir, 'blobs', 'incoming')), [])
    assert.equal((await blobs.put(randomBytes(1_000_000), LIMIT)).bytes, 1_000_000)
  })

  test('lets a reader stop halfway', async (t) => {
    const blobs = await openBlobs(directory(t))
    const { sha256: name } = await blobs.put(randomBytes(1_000_000), LIMIT)
    const content = await blobs.get(name)
    for await (const _ of content ?? assert.fail('no such blob')) break
    assert.equal(content?.destroyed, true)
  })
})
