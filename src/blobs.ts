/** Where telemetry, full logs and other bulk lives: files named by the hash of what is in them; an event holds the hash. */
import { createHash, type Hash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** The most that one blob may have, whatever the caller allows. */
const MAX_BLOB_BYTES = 1_073_741_824

export type Blob = { readonly sha256: string; readonly bytes: number }

export interface Blobs {
  /**
   * Keeps bytes, durably once this resolves. The same bytes twice are one blob.
   * @param options.limit_bytes the most it may have, up to `MAX_BLOB_BYTES`
   * @throws {BlobTooLarge} {BlobsUnavailable} or whatever `content` throws: nothing is kept
   */
  put(content: Uint8Array | AsyncIterable<Uint8Array>, options: PutOptions): Promise<Blob>
  /** The bytes, or null when there is no such blob. The stream ends with `BlobCorrupt` when they are not what was put. */
  get(sha256: string): Promise<Readable | null>
  /** @throws {TypeError} on what is no SHA-256 in hex */
  has(sha256: string): Promise<boolean>
  /** Reads it all and checks it: null when there is no such blob. @throws {BlobCorrupt} */
  verify(sha256: string): Promise<Blob | null>
}

export type PutOptions = { readonly limit_bytes: number; readonly signal?: AbortSignal }

export class BlobTooLarge extends Error {
  override readonly name = 'BlobTooLarge'
}
/** The directory cannot be written or read: disk full, I/O error; the cause says which. */
export class BlobsUnavailable extends Error {
  override readonly name = 'BlobsUnavailable'
}
export class BlobCorrupt extends Error {
  override readonly name = 'BlobCorrupt'
}

/** @param directory made when missing; `ab/abcdef…` for each blob, `incoming/` for those being written */
export const openBlobs = async (directory: string): Promise<Blobs> => {
  const incoming = join(directory, 'incoming')
  await mkdir(incoming, { recursive: true, mode: 0o700 })
  // What an earlier process was writing when it died was never acknowledged.
  for (const name of await readdir(incoming)) await unlink(join(incoming, name))

  const pathOf = (sha256: string): string => {
    // It comes from URLs and agents: anything else could name a file elsewhere.
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new TypeError(`${JSON.stringify(sha256)} is no SHA-256 in hex`)
    return join(directory, sha256.slice(0, 2), sha256)
  }
  const sizeOf = (sha256: string): Promise<number | null> =>
    stat(pathOf(sha256)).then(
      (found) => found.size,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return null
        throw unavailable(error)
      },
    )
  const unavailable = (error: unknown) =>
    new BlobsUnavailable(`cannot use the blobs in ${directory}: ${(error as Error).message}`, { cause: error })
  /** Tells our disk's errors from those of whoever sends the bytes. */
  const ours = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error) => {
      throw unavailable(error)
    })
  const settle = async (temporary: string, sha256: string) => {
    const folder = join(directory, sha256.slice(0, 2))
    if (await mkdir(folder, { recursive: true, mode: 0o700 })) await syncDirectory(directory)
    // Over one that is there: should that one have rotted, it is whole again.
    await rename(temporary, pathOf(sha256))
    await syncDirectory(folder)
  }

  const blobs: Blobs = {
    async put(content, { limit_bytes, signal }) {
      const limit = Math.min(limit_bytes, MAX_BLOB_BYTES)
      const temporary = join(incoming, randomUUID())
      const file = await ours(open(temporary, 'wx', 0o600))
      try {
        const hash = createHash('sha256')
        let bytes = 0
        for await (const chunk of content instanceof Uint8Array ? [content] : content) {
          signal?.throwIfAborted()
          bytes += chunk.byteLength
          if (bytes > limit) throw new BlobTooLarge(`more than the ${limit} bytes allowed here`)
          hash.update(chunk)
          await ours(writeAll(file, chunk))
        }
        signal?.throwIfAborted()
        const sha256 = hash.digest('hex')
        await ours(file.sync())
        await ours(settle(temporary, sha256))
        return { sha256, bytes }
      } catch (error) {
        await unlink(temporary).catch(() => undefined)
        throw error
      } finally {
        await file.close()
      }
    },

    async get(sha256) {
      if ((await sizeOf(sha256)) === null) return null
      const hash = createHash('sha256')
      const checked = checking(sha256, hash)
      // Its error, if any, is the reader's: it comes out of `checked`.
      pipeline(createReadStream(pathOf(sha256)), checked).catch(() => undefined)
      return checked
    },

    has: async (sha256) => (await sizeOf(sha256)) !== null,

    async verify(sha256) {
      const content = await blobs.get(sha256)
      if (!content) return null
      let bytes = 0
      for await (const chunk of content) bytes += (chunk as Buffer).length
      return { sha256, bytes }
    },
  }
  return blobs
}

const writeAll = async (file: Awaited<ReturnType<typeof open>>, chunk: Uint8Array) => {
  for (let done = 0; done < chunk.byteLength; ) done += (await file.write(chunk, done)).bytesWritten
}

/** Passes bytes on and, at the end, fails when they are not the ones that were put. */
const checking = (sha256: string, hash: Hash): Transform =>
  new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      done(null, chunk)
    },
    flush(done) {
      done(
        hash.digest('hex') === sha256 ? null : new BlobCorrupt(`blob ${sha256} is not what was put: the file changed`),
      )
    },
  })

/** A renamed file is only there after a power cut when its directory was synced. */
const syncDirectory = async (path: string) => {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
