/** The one secret that the service itself keeps: the master key, and what is derived from it. */
import { createHmac, hkdfSync, randomBytes, randomUUID } from 'node:crypto'
import { closeSync, fstatSync, fsyncSync, linkSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export const KEY_BYTES = 32
const OTHERS = 0o077

/** Wrapped, and not shown by inspect or JSON, so that it does not end up in a log with the object that holds it. */
export type MasterKey = { readonly bytes: () => Buffer }

export class MasterKeyError extends Error {
  override readonly name = 'MasterKeyError'
}

/**
 * From a value (32 bytes in hex, base64 or base64url; for the environment) when there is one, else from a file, which
 * is made when missing.
 * @throws {MasterKeyError} when it is no key, or others may read the file
 */
export const masterKeyFrom = ({
  value,
  file,
}: {
  readonly value?: string | undefined
  readonly file: string
}): MasterKey =>
  value ? masterKey(value, 'the master key that was given') : masterKey(readOrMake(file), `the master key file ${file}`)

/** A key for one purpose, so that no two uses of the master key can be played against each other (RFC 5869). */
export const deriveKey = (key: MasterKey, label: string): Buffer =>
  Buffer.from(hkdfSync('sha256', key.bytes(), '', `bloomery ${label}`, KEY_BYTES))

/** A token that only the holder of the master key can make, the same each time for the same purpose: 43 characters. */
export const tokenFor = (key: MasterKey, purpose: string): string =>
  createHmac('sha256', deriveKey(key, 'tokens')).update(purpose).digest('base64url')

const masterKey = (text: string, what: string): MasterKey => {
  const trimmed = text.trim()
  const bytes = Buffer.from(trimmed, /^[0-9a-f]{64}$/i.test(trimmed) ? 'hex' : 'base64')
  if (bytes.length !== KEY_BYTES || !/^[\w+/-]{43}=?$|^[0-9a-f]{64}$/i.test(trimmed))
    throw new MasterKeyError(`${what} is not ${KEY_BYTES} bytes in hex or base64: make one with "openssl rand -hex 32"`)
  return { bytes: () => bytes }
}

const readOrMake = (path: string): string => {
  for (;;) {
    let file: number
    try {
      file = openSync(path, 'r')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        throw new MasterKeyError(`the master key file ${path} cannot be read: ${(error as Error).message}`, {
          cause: error,
        })
      make(path)
      continue
    }
    try {
      const mode = fstatSync(file).mode & 0o777
      if (mode & OTHERS)
        throw new MasterKeyError(`others may read the master key file ${path} (mode ${mode.toString(8)}): chmod 600 it`)
      return readFileSync(file, 'utf8')
    } finally {
      closeSync(file)
    }
  }
}

/** Whole or not at all: a key half written before a crash would be taken for the key ever after. */
const make = (path: string) => {
  const temporary = `${path}.${randomUUID()}`
  try {
    const file = openSync(temporary, 'wx', 0o600)
    try {
      writeSync(file, `${randomBytes(KEY_BYTES).toString('hex')}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    try {
      linkSync(temporary, path)
    } catch (error) {
      // Another process made it first: that one is the key.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    unlinkSync(temporary)
    const directory = openSync(dirname(path), 'r')
    fsyncSync(directory)
    closeSync(directory)
  } catch (error) {
    throw new MasterKeyError(`the master key file ${path} cannot be made: ${(error as Error).message}`, {
      cause: error,
    })
  }
}
