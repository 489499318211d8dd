/** Images: only what has the right checksum and is complete in itself comes out of the cache. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { ImageError, type ImageErrorCode } from '../../src/boot/image-source.ts'
import { type ImageSpec, imageCache, imageSpec } from '../../src/boot/images.ts'
import { run } from '../../src/boot/run.ts'
import { imageServer } from './image-server.ts'

const signal = AbortSignal.timeout(60_000)
const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const raw = (url: string, bytes: Buffer): ImageSpec => ({
  url,
  format: 'raw',
  compression: 'none',
  checksum: sha256(bytes),
})
const image = (size = 300_000) => randomBytes(size)

async function setup(t: TestContext, more: { limit_bytes?: number; stall_ms?: number } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'images-test-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const allowed = join(dir, 'allowed')
  await mkdir(allowed)
  const options = { dir: join(dir, 'cache'), allowed_dirs: [allowed], limit_bytes: 100_000_000, ...more }
  return { dir, allowed, options, cache: await imageCache(options) }
}

const fails = (promise: Promise<unknown>, code: ImageErrorCode, words = /./) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof ImageError, String(error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, words)
    return true
  })

test('an image is fetched once, also for those who ask at the same time or after a restart', async (t) => {
  const { cache, options } = await setup(t)
  const bytes = image()
  const { url, asked } = await imageServer(t, { '/a': bytes })
  const progress: number[] = []
  const fetchIt = (from = cache) =>
    from.fetchVerified(raw(`${url}/a`, bytes), { signal, onProgress: (done) => progress.push(done) })
  const all = await Promise.all([fetchIt(), fetchIt(), fetchIt()])
  assert.ok((await readFile(all[0].path)).equals(bytes))
  assert.equal(all[0].bytes, bytes.length)
  assert.equal(all[0].virtual_bytes, Math.ceil(bytes.length / 512) * 512)
  await fetchIt()
  await fetchIt(await imageCache(options))
  assert.deepEqual(asked, ['/a'])
  assert.equal(progress.at(-1), bytes.length)
})

test('a wrong checksum names both, and nothing is kept', async (t) => {
  const { cache, options } = await setup(t)
  const bytes = image()
  const other = image()
  const { url } = await imageServer(t, { '/a': bytes })
  const wanted = { ...raw(`${url}/a`, other) }
  await fails(
    cache.fetchVerified(wanted, { signal }),
    'wrong-checksum',
    new RegExp(`${sha256(bytes)}.*${sha256(other)}`),
  )
  assert.deepEqual(await readdir(options.dir), [])
})

test('an image that somebody removed from the cache is fetched again', async (t) => {
  const { cache } = await setup(t)
  const bytes = image()
  const { url, asked } = await imageServer(t, { '/a': bytes })
  const { path } = await cache.fetchVerified(raw(`${url}/a`, bytes), { signal })
  await rm(path)
  await cache.fetchVerified(raw(`${url}/a`, bytes), { signal })
  assert.deepEqual(asked, ['/a', '/a'])
  assert.ok((await readFile(path)).equals(bytes))
})

test('sha512 is understood', async (t) => {
  const { cache } = await setup(t)
  const bytes = image()
  const { url } = await imageServer(t, { '/a': bytes })
  const checksum = `sha512:${createHash('sha512').update(bytes).digest('hex')}`
  assert.ok(await cache.fetchVerified({ ...raw(`${url}/a`, bytes), checksum }, { signal }))
})

test('not there, no server, cut off, silent: each is said as what it is', async (t) => {
  const { cache, options } = await setup(t, { stall_ms: 200 })
  const { url } = await imageServer(t, {
    '/cut': (response) => {
      response.writeHead(200, { 'content-length': 1000 }).write('half', () => response.destroy())
    },
    '/silent': (response) => {
      response.writeHead(200).write('half')
    },
    '/broken': (response) => {
      response.writeHead(503).end()
    },
  })
  const ask = (at: string) => cache.fetchVerified(raw(at, image()), { signal })
  await fails(ask(`${url}/nothing`), 'not-found')
  await fails(ask('http://127.0.0.1:9/x'), 'unreachable', /ECONNREFUSED|bad port/)
  await fails(ask(`${url}/cut`), 'unreachable')
  await fails(ask(`${url}/silent`), 'unreachable', /nothing came for 0.2 s/)
  await fails(ask(`${url}/broken`), 'unreachable', /503/)
  assert.deepEqual(await readdir(options.dir), [])
})

test('redirects are followed to http and https only, and not for ever', async (t) => {
  const { cache, allowed } = await setup(t)
  const bytes = image()
  await writeFile(join(allowed, 'a'), bytes)
  const to = (location: string) => (response: import('node:http').ServerResponse) => {
    response.writeHead(302, { location }).end()
  }
  const { url } = await imageServer(t, {
    '/a': bytes,
    '/moved': to('/a'),
    '/file': to(pathToFileURL(join(allowed, 'a')).href),
    '/loop': to('/loop'),
  })
  assert.ok(await cache.fetchVerified(raw(`${url}/moved`, bytes), { signal }))
  await fails(cache.fetchVerified(raw(`${url}/file`, image()), { signal }), 'not-allowed', /only http and https/)
  await fails(cache.fetchVerified(raw(`${url}/loop`, image()), { signal }), 'unreachable', /redirects/)
})

test('a file is taken from an allowed folder only, wherever links and dots lead', async (t) => {
  const { cache, dir, allowed } = await setup(t)
  const bytes = image()
  await writeFile(join(allowed, 'in.img'), bytes)
  await writeFile(join(dir, 'out.img'), bytes)
  await mkdir(`${allowed}-not`)
  await writeFile(join(`${allowed}-not`, 'near.img'), bytes)
  await symlink(join(dir, 'out.img'), join(allowed, 'link.img'))
  await symlink(dir, join(allowed, 'folder'))
  const ask = (path: string) => cache.fetchVerified(raw(`file://${path}`, image()), { signal })
  for (const path of [
    join(dir, 'out.img'),
    join(allowed, 'link.img'),
    join(allowed, 'folder/out.img'),
    `${allowed}/../out.img`,
    `${allowed}-not/near.img`,
    '/dev/zero',
    allowed,
  ])
    await fails(ask(path), 'not-allowed')
  await fails(ask(join(allowed, 'none.img')), 'not-found')

  const spec = raw(pathToFileURL(join(allowed, 'in.img')).href, bytes)
  const mine = await cache.fetchVerified(spec, { signal })
  await writeFile(join(allowed, 'in.img'), 'changed meanwhile')
  assert.ok((await readFile(mine.path)).equals(bytes))
})

test('what was used longest ago makes room, what is in use does not', async (t) => {
  const { cache, options } = await setup(t, { limit_bytes: 700_000 })
  const [a, b, c] = [image(), image(), image()] as const
  const { url, asked } = await imageServer(t, { '/a': a, '/b': b, '/c': c, '/huge': image(800_000) })
  const get = (name: string, bytes: Buffer) => cache.fetchVerified(raw(`${url}/${name}`, bytes), { signal })
  const used_a = await get('a', a)
  const used_b = await get('b', b)
  await fails(get('c', c), 'too-large', /700000/)
  used_a.release()
  used_a.release()
  const used_c = await get('c', c)
  assert.equal((await readdir(options.dir)).length, 2)
  for (const used of [used_b, used_c]) used.release()
  await fails(get('huge', image()), 'too-large')
  await get('a', a)
  assert.deepEqual(asked, ['/a', '/b', '/c', '/c', '/huge', '/a'])
})

test('one who goes away does not spoil the download for the others; when all have gone it ends', async (t) => {
  const { cache, options } = await setup(t)
  const bytes = image()
  const begun = Promise.withResolvers<() => void>()
  const cut = Promise.withResolvers<void>()
  const { url } = await imageServer(t, {
    '/a': (response) => {
      response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, 1000))
      begun.resolve(() => response.end(bytes.subarray(1000)))
    },
    '/b': (response) => {
      response.writeHead(200).write('some')
      response.on('close', cut.resolve)
    },
  })
  const impatient = new AbortController()
  const first = cache.fetchVerified(raw(`${url}/a`, bytes), { signal: impatient.signal })
  const second = cache.fetchVerified(raw(`${url}/a`, bytes), { signal })
  const finish = await begun.promise
  impatient.abort(new Error('enough'))
  await assert.rejects(first, /enough/)
  finish()
  assert.ok((await readFile((await second).path)).equals(bytes))

  const only = new AbortController()
  const started = Promise.withResolvers<void>()
  const gone = cache.fetchVerified(raw(`${url}/b`, image()), {
    signal: only.signal,
    onProgress: () => started.resolve(),
  })
  await started.promise
  only.abort(new Error('enough'))
  await assert.rejects(gone, /enough/)
  await cut.promise
  assert.equal((await readdir(options.dir)).filter((name) => !name.endsWith('.partial')).length, 1)
})

test('an image that needs another file, or lies about its format, is refused before it is opened', async (t) => {
  const { cache, allowed } = await setup(t)
  const make = async (name: string, ...args: string[]) => {
    const { code, stderr } = await run(
      ['qemu-img', 'create', '-q', ...args, join(allowed, name), ...(args.includes('-b') ? [] : ['10M'])],
      { signal },
    )
    assert.equal(code, 0, stderr)
    return join(allowed, name)
  }
  const ask = async (path: string, format: ImageSpec['format']) => {
    const bytes = await readFile(path)
    return cache.fetchVerified({ ...raw(pathToFileURL(path).href, bytes), format }, { signal })
  }
  const base = await make('base.qcow2', '-f', 'qcow2')
  assert.equal((await ask(base, 'qcow2')).virtual_bytes, 10_485_760)
  for (const format of ['vmdk', 'vdi', 'vhdx', 'vpc'] as const)
    assert.ok(((await ask(await make(`x.${format}`, '-f', format), format)).virtual_bytes ?? 0) >= 10_485_760, format)

  await fails(ask(base, 'raw'), 'wrong-format', /declared as raw, its content is qcow2/)
  await fails(ask(base, 'vmdk'), 'wrong-format')
  await fails(
    ask(await make('b.qcow2', '-f', 'qcow2', '-b', base, '-F', 'qcow2'), 'qcow2'),
    'wrong-format',
    /backing file/,
  )
  const outside = join(allowed, 'data.raw')
  await fails(
    ask(await make('e.qcow2', '-f', 'qcow2', '-o', `data_file=${outside}`), 'qcow2'),
    'wrong-format',
    /external file/,
  )
  await fails(
    ask(await make('f.vmdk', '-f', 'vmdk', '-o', 'subformat=monolithicFlat'), 'vmdk'),
    'wrong-format',
    /other files/,
  )
  await fails(
    ask(await make('c.vmdk', '-f', 'vmdk', '-b', join(allowed, 'x.vmdk'), '-F', 'vmdk'), 'vmdk'),
    'wrong-format',
    /parent/,
  )
  await writeFile(join(allowed, 'cut.qcow2'), (await readFile(base)).subarray(0, 80))
  await fails(ask(join(allowed, 'cut.qcow2'), 'qcow2'), 'wrong-format')
})

test('a compressed image is kept as it is; its size on a disk is not known', async (t) => {
  const { cache } = await setup(t)
  const bytes = Buffer.from([0x1f, 0x8b, ...image(100)])
  const { url } = await imageServer(t, { '/a.gz': bytes })
  const got = await cache.fetchVerified({ ...raw(`${url}/a.gz`, bytes), compression: 'gzip' }, { signal })
  assert.equal(got.virtual_bytes, null)
})

test('a specification with secrets, other protocols or a vague checksum is no specification', () => {
  const good = { url: 'http://images.example/a.qcow2', format: 'qcow2', checksum: `sha256:${'0'.repeat(64)}` }
  assert.equal(imageSpec.parse(good).compression, 'none')
  for (const bad of [
    { url: 'http://user:pw@images.example/a' },
    { url: 'ftp://images.example/a' },
    { url: 'file://host/a' },
    { url: 'not a url' },
    { checksum: 'md5:0' },
    { checksum: 'sha256:abc' },
    { compression: 'gzip' },
    { format: 'qed' },
  ])
    assert.equal(imageSpec.safeParse({ ...good, ...bad }).success, false, JSON.stringify(bad))
})
