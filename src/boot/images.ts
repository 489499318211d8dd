/** Fetches images, believes only their checksum, and keeps the verified ones in a folder of bounded size. */
import { createHash } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { BadImage, IMAGE_FORMATS, inspectImage } from './image-format.ts'
import { ImageError, openImage, reasonOf } from './image-source.ts'
import { type Run, run } from './run.ts'

const imageUrl = z
  .string()
  .max(2048)
  .refine(isImageUrl, 'an http, https or file URL without user, password or fragment')

export const imageSpec = z
  .strictObject({
    url: imageUrl,
    format: z.enum(IMAGE_FORMATS),
    /** How the download is packed; only the agent unpacks (deploy interface `direct`). */
    compression: z.enum(['none', 'gzip', 'zstd']).default('none'),
    /** Of the bytes as they are downloaded. */
    checksum: z
      .string()
      .regex(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/, 'sha256: or sha512: and lower-case hex digits'),
  })
  .refine(({ format, compression }) => compression === 'none' || format === 'raw', 'only raw images may be compressed')
export type ImageSpec = z.infer<typeof imageSpec>

export type VerifiedImage = {
  readonly path: string
  readonly bytes: number
  /** What it takes on a disk; null when it is compressed, and nobody knows before it is unpacked. */
  readonly virtual_bytes: number | null
  /** Until then it stays where it is. */
  release(): void
}

export type Progress = (done_bytes: number, total_bytes: number | null) => void
export type FetchOptions = { readonly signal: AbortSignal; readonly onProgress?: Progress }

export type ImageCache = {
  /**
   * A local copy, its checksum verified: ours alone, so that nobody changes it while it is written to a disk. (An image
   * in an allowed folder is copied as well: a hard link would follow a write to the original.)
   * @throws {ImageError}
   */
  fetchVerified(spec: ImageSpec, options: FetchOptions): Promise<VerifiedImage>
}

export type ImageCacheOptions = {
  readonly dir: string
  readonly allowed_dirs: readonly string[]
  /** For all images together; the ones used longest ago make room. */
  readonly limit_bytes: number
  readonly fetch?: typeof fetch
  readonly run?: Run
  /** Without a byte for this long a download is given up. */
  readonly stall_ms?: number
}

const STALL_MS = 60_000
const PARTIAL = '.partial'

type Download = {
  readonly done: Promise<Kept>
  readonly watchers: Set<Progress>
  readonly stop: AbortController
  waiting: number
}
type Kept = { readonly path: string; readonly bytes: number; users: number }

export async function imageCache(options: ImageCacheOptions): Promise<ImageCache> {
  const { dir, limit_bytes, stall_ms = STALL_MS, run: tool = run } = options
  const downloads = new Map<string, Download>()
  const kept = await readKept(dir)
  let arriving_bytes = 0
  let serial = 0

  /** @throws {ImageError} too-large, when what is in use leaves no room */
  async function makeRoom(bytes: number, url: string): Promise<void> {
    const taken = () => arriving_bytes + [...kept.values()].reduce((sum, image) => sum + image.bytes, 0)
    for (const [name, image] of kept) {
      if (taken() + bytes <= limit_bytes) break
      if (image.users > 0) continue
      kept.delete(name)
      await rm(image.path, { force: true })
    }
    if (taken() + bytes > limit_bytes)
      throw new ImageError(
        'too-large',
        `image ${url} does not fit: the image cache may hold ${limit_bytes} bytes, ${taken()} of them are in use now`,
      )
  }

  async function download(spec: ImageSpec, name: string, stop: AbortController, report: Progress): Promise<Kept> {
    serial += 1
    const partial = join(dir, `${name}.${serial}${PARTIAL}`)
    let mine = 0
    const claim = async (bytes: number) => {
      if (bytes <= mine) return
      await makeRoom(bytes - mine, spec.url)
      arriving_bytes += bytes - mine
      mine = bytes
    }
    const stall = watchdog(stall_ms, () =>
      stop.abort(new ImageError('unreachable', `image ${spec.url}: nothing came for ${stall_ms / 1000} s`)),
    )
    const file = await open(partial, 'w', 0o400)
    try {
      const source = await openImage(spec.url, {
        allowed_dirs: options.allowed_dirs,
        fetch: options.fetch ?? fetch,
        signal: stop.signal,
      })
      if (source.bytes !== null) await claim(source.bytes)
      const hash = createHash(spec.checksum.slice(0, 6))
      let done = 0
      for await (const chunk of source.chunks) {
        stop.signal.throwIfAborted()
        stall.pat()
        done += chunk.length
        await claim(done)
        hash.update(chunk)
        await writeAll(file, chunk)
        report(done, source.bytes)
      }
      const found = `${spec.checksum.slice(0, 6)}:${hash.digest('hex')}`
      if (found !== spec.checksum)
        throw new ImageError(
          'wrong-checksum',
          `image ${spec.url} has the checksum ${found}, ${spec.checksum} was expected: correct the checksum, or somebody changed the image`,
        )
      await file.sync()
      const path = join(dir, name)
      await rename(partial, path)
      const image = { path, bytes: done, users: 1 } // our own hold, until those who wait have theirs
      kept.set(name, image)
      arriving_bytes -= mine
      mine = 0
      return image
    } catch (error) {
      await rm(partial, { force: true })
      throw stop.signal.aborted ? stop.signal.reason : asImageError(error, spec.url)
    } finally {
      arriving_bytes -= mine
      stall.end()
      await file.close()
    }
  }

  /** One download for all who want the same bytes from the same place; it ends when the last of them has gone away. */
  async function share(spec: ImageSpec, name: string, { signal, onProgress }: FetchOptions): Promise<Kept> {
    const key = `${spec.checksum} ${spec.url}`
    const shared = downloads.get(key) ?? begin(spec, name, key)
    shared.waiting += 1
    if (onProgress) shared.watchers.add(onProgress)
    const left = Promise.withResolvers<never>()
    const leave = () => left.reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    try {
      return await Promise.race([shared.done, left.promise])
    } finally {
      signal.removeEventListener('abort', leave)
      if (onProgress) shared.watchers.delete(onProgress)
      shared.waiting -= 1
      if (shared.waiting === 0) {
        if (downloads.get(key) === shared) downloads.delete(key)
        shared.stop.abort(new Error('nobody waits for this image any more'))
      }
    }
  }

  function begin(spec: ImageSpec, name: string, key: string): Download {
    const stop = new AbortController()
    const watchers = new Set<Progress>()
    const done = download(spec, name, stop, (bytes, total) => {
      for (const watcher of watchers) watcher(bytes, total)
    })
    const letGo = (image: Kept) =>
      setImmediate(() => {
        image.users -= 1
      })
    done.then(letGo, () => {}) // a failure is heard by those who wait; if nobody does, nobody needs to
    const started = { done, watchers, stop, waiting: 0 }
    downloads.set(key, started)
    return started
  }

  /** One that is here already, unless somebody emptied the folder under us. */
  async function hold(name: string): Promise<Kept | null> {
    const image = kept.get(name)
    if (!image) return null
    const there = await stat(used(image).path).catch(() => null)
    if (there) return image
    image.users -= 1
    if (kept.get(name) === image) kept.delete(name)
    return null
  }

  return {
    async fetchVerified(spec, fetch_options) {
      fetch_options.signal.throwIfAborted()
      const name = spec.checksum.replace(':', '-')
      const image = (await hold(name)) ?? used(await share(spec, name, fetch_options))
      kept.delete(name) // to the end of the line: the one used last goes last
      kept.set(name, image)
      let released = false
      const release = () => {
        image.users -= released ? 0 : 1
        released = true
      }
      try {
        await utimes(image.path, new Date(), new Date())
        const packed = spec.compression !== 'none'
        const virtual_bytes = packed ? null : await inspectImage(image.path, spec.format, fetch_options.signal, tool)
        return { path: image.path, bytes: image.bytes, virtual_bytes, release }
      } catch (error) {
        release()
        throw asImageError(error, spec.url)
      }
    },
  }
}

function used(image: Kept): Kept {
  image.users += 1
  return image
}

function isImageUrl(text: string): boolean {
  const url = URL.parse(text)
  if (!url || url.username || url.password || url.hash) return false
  if (url.protocol === 'file:') return url.host === '' && !/%2f|%00/i.test(text)
  return url.protocol === 'http:' || url.protocol === 'https:'
}

/** What an earlier run verified and renamed, oldest use first. Half downloads are thrown away. */
async function readKept(dir: string): Promise<Map<string, Kept>> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const found: { name: string; image: Kept; used: number }[] = []
  for (const name of await readdir(dir)) {
    const path = join(dir, name)
    if (name.endsWith(PARTIAL)) await rm(path, { force: true })
    if (!/^sha(256|512)-[0-9a-f]+$/.test(name)) continue
    const { size, mtimeMs } = await stat(path)
    found.push({ name, image: { path, bytes: size, users: 0 }, used: mtimeMs })
  }
  return new Map(found.sort((a, b) => a.used - b.used).map(({ name, image }) => [name, image]))
}

function asImageError(error: unknown, url: string): unknown {
  if (error instanceof ImageError) return error
  if (error instanceof BadImage)
    return new ImageError('wrong-format', `image ${url}: ${error.message}`, { cause: error })
  const code = error instanceof Error && 'code' in error ? error.code : null
  if (code === 'ENOSPC')
    return new ImageError('too-large', `image ${url}: no space left in the image cache's file system`, { cause: error })
  if (error instanceof TypeError)
    return new ImageError('unreachable', `image ${url} broke off: ${reasonOf(error)}`, { cause: error })
  return error
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten
}

function watchdog(after_ms: number, bark: () => void) {
  const timer = setTimeout(bark, after_ms)
  return { pat: () => timer.refresh(), end: () => clearTimeout(timer) }
}
