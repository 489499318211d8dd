/** Opens what an image's URL names, http(s) or a file in an allowed folder, as a stream of bytes. */
import { constants } from 'node:fs'
import { type FileHandle, open, readlink, realpath } from 'node:fs/promises'
import { sep } from 'node:path'
import { fileURLToPath } from 'node:url'

export const IMAGE_ERROR_CODES = [
  'not-allowed',
  'unreachable',
  'not-found',
  'wrong-checksum',
  'wrong-format',
  'too-large',
] as const
export type ImageErrorCode = (typeof IMAGE_ERROR_CODES)[number]

/** The message is for an operator: which image, what is wrong, what to do. */
export class ImageError extends Error {
  override readonly name = 'ImageError'
  readonly code: ImageErrorCode
  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** `bytes` is what the source says it will send, null when it does not say. */
export type ImageStream = { readonly bytes: number | null; readonly chunks: AsyncIterable<Uint8Array> }

export type SourceOptions = {
  readonly allowed_dirs: readonly string[]
  readonly fetch: typeof fetch
  readonly signal: AbortSignal
}

const MAX_REDIRECTS = 5

/** @throws {ImageError} not-allowed, unreachable, not-found */
export async function openImage(url: string, options: SourceOptions): Promise<ImageStream> {
  const { protocol } = new URL(url)
  if (protocol === 'file:') return openFile(url, options.allowed_dirs)
  return openHttp(url, options)
}

async function openHttp(url: string, { fetch, signal }: SourceOptions): Promise<ImageStream> {
  let at = new URL(url)
  for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
    if (at.protocol !== 'http:' && at.protocol !== 'https:')
      throw new ImageError('not-allowed', `image ${url} leads to ${at.protocol}//; only http and https are followed`)
    const response = await fetch(at, { redirect: 'manual', signal, headers: { 'accept-encoding': 'identity' } }).catch(
      (cause) => {
        signal.throwIfAborted()
        throw new ImageError('unreachable', `image ${url} cannot be fetched: ${reasonOf(cause)}`, { cause })
      },
    )
    const { status, body } = response
    const location = response.headers.get('location')
    if (status === 200 && body) {
      const length = response.headers.get('content-length')
      return { bytes: length === null ? null : Number(length), chunks: body }
    }
    await body?.cancel()
    if ([301, 302, 303, 307, 308].includes(status) && location) {
      at = URL.parse(location, at) ?? at
      continue
    }
    if (status === 404 || status === 410)
      throw new ImageError('not-found', `image ${url} is not there: the server answered ${status}`)
    throw new ImageError('unreachable', `image ${url} cannot be fetched: the server answered ${status}`)
  }
  throw new ImageError('unreachable', `image ${url} cannot be fetched: more than ${MAX_REDIRECTS} redirects`)
}

async function openFile(url: string, allowed_dirs: readonly string[]): Promise<ImageStream> {
  const path = await realpath(fileURLToPath(url)).catch((cause) => {
    throw new ImageError('not-found', `image ${url} is not there`, { cause })
  })
  await checkAllowed(path, url, allowed_dirs)
  // Not blocking: a FIFO would wait for a writer. No last symlink: the path is resolved, a link is one made just now.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW).catch((cause) => {
    throw new ImageError('not-found', `image ${url} cannot be opened: ${reasonOf(cause)}`, { cause })
  })
  try {
    // Once more for the file that was in fact opened: a folder on the way may have been swapped for a link in between.
    await checkAllowed(await readlink(`/proc/self/fd/${file.fd}`), url, allowed_dirs)
    const { size } = await regular(file, url)
    return { bytes: size, chunks: file.createReadStream({ highWaterMark: 1_048_576 }) }
  } catch (error) {
    await file.close()
    throw error
  }
}

async function checkAllowed(path: string, url: string, allowed_dirs: readonly string[]): Promise<void> {
  for (const dir of allowed_dirs) {
    const real = await realpath(dir).catch(() => null)
    if (real !== null && path.startsWith(real.endsWith(sep) ? real : real + sep)) return
  }
  throw new ImageError(
    'not-allowed',
    `image ${url} is outside of the folders that images may come from (image_dirs in the configuration)`,
  )
}

async function regular(file: FileHandle, url: string) {
  const stat = await file.stat()
  if (!stat.isFile()) throw new ImageError('not-allowed', `image ${url} is not a regular file`)
  return stat
}

export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? error.cause.message : error.message
}
