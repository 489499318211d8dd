/** Secrets of the nodes, encrypted at rest and outside the log: an event names a secret and its version, never its value. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { chmodSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import type { Json } from './store/port.ts'
import { deriveKey, KEY_BYTES, type MasterKey } from './vault-key.ts'

const SCHEMA_VERSION = 1
const SECRET_BYTES = 65_536
const NONCE_BYTES = 12
const TAG_BYTES = 16

export type Secret = string | { readonly [key: string]: Json | undefined }

export interface Vault {
  /** Keeps a secret durably and returns its version, from 1. Earlier versions stay readable until the node is shredded. */
  put(node: string, name: string, value: Secret): number
  /** The newest version, or the one asked for. Null when there never was one. @throws {VaultError} */
  get(node: string, name: string, version?: number): { readonly value: Secret; readonly version: number } | null
  /** Destroys the node's data key: nothing of the node can be read again, in any copy made after this. Safe to repeat. */
  shred(node: string): void
  close(): void
}

/**
 * `shredded`: the key of this node was destroyed on purpose. `wrong-master-key`: the vault was made with another one.
 * `damaged`: what is stored is not what was put. `refused`: no such value can be kept.
 */
export type VaultErrorCode = 'shredded' | 'wrong-master-key' | 'damaged' | 'refused' | 'unavailable'

export class VaultError extends Error {
  override readonly name = 'VaultError'
  readonly code: VaultErrorCode
  constructor(code: VaultErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const SCHEMA = `
  CREATE TABLE vault (check_value BLOB NOT NULL) STRICT;
  CREATE TABLE keys (node TEXT PRIMARY KEY, wrapped BLOB) STRICT, WITHOUT ROWID;
  CREATE TABLE secrets (
    node TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (node, name, version)
  ) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${SCHEMA_VERSION};`

/** @throws {VaultError} `wrong-master-key`, or `unavailable` when the file is no vault of this version */
export const openVault = ({ path, masterKey }: { readonly path: string; readonly masterKey: MasterKey }): Vault => {
  const wrapping = deriveKey(masterKey, 'vault: wrap data keys')
  const db = openDatabase(path, wrapping)
  const findKey = db.prepare('SELECT wrapped FROM keys WHERE node = ?')
  const addKey = db.prepare('INSERT INTO keys VALUES (?, ?)')
  const dropKey = db.prepare(
    'INSERT INTO keys VALUES (?, NULL) ON CONFLICT (node) DO UPDATE SET wrapped = NULL WHERE wrapped IS NOT NULL',
  )
  const dropSecrets = db.prepare('DELETE FROM secrets WHERE node = ?')
  const lastVersion = db.prepare('SELECT max(version) AS version FROM secrets WHERE node = ? AND name = ?')
  const addSecret = db.prepare('INSERT INTO secrets VALUES (?, ?, ?, ?)')
  const findSecret = db.prepare('SELECT sealed FROM secrets WHERE node = ? AND name = ? AND version = ?')
  const emptyWal = db.prepare('PRAGMA wal_checkpoint(TRUNCATE)')

  /** The node's own key, or undefined when it has none yet. */
  const dataKey = (node: string): Buffer | undefined => {
    const found = findKey.get(node) as { wrapped: Uint8Array | null } | undefined
    if (!found) return undefined
    if (!found.wrapped) throw new VaultError('shredded', `the secrets of node ${node} were destroyed`)
    return unseal(wrapping, found.wrapped, ['key', node])
  }
  const newKey = (node: string): Buffer => {
    const key = randomBytes(KEY_BYTES)
    addKey.run(node, seal(wrapping, key, ['key', node]))
    return key
  }
  const transaction = <T>(work: () => T): T => {
    try {
      db.exec('BEGIN IMMEDIATE')
      const result = work()
      db.exec('COMMIT')
      return result
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      if (error instanceof VaultError) throw error
      throw new VaultError('unavailable', `the vault ${path} cannot be written: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }
  const newest = (node: string, name: string): number =>
    (lastVersion.get(node, name) as { version: number | null }).version ?? 0

  return {
    put: (node, name, value) => {
      const plain = Buffer.from(JSON.stringify(value))
      if (plain.length > SECRET_BYTES) throw new VaultError('refused', `${name} is larger than ${SECRET_BYTES} bytes`)
      return transaction(() => {
        const key = dataKey(node) ?? newKey(node)
        const version = newest(node, name) + 1
        addSecret.run(node, name, version, seal(key, plain, ['secret', node, name, version]))
        return version
      })
    },
    get(node, name, version = newest(node, name)) {
      const key = dataKey(node)
      const found = findSecret.get(node, name, version) as { sealed: Uint8Array } | undefined
      if (!found) return null
      if (!key) throw new VaultError('damaged', `node ${node} has secrets, but no key`)
      const plain = unseal(key, found.sealed, ['secret', node, name, version])
      return { value: JSON.parse(plain.toString()) as Secret, version }
    },
    shred(node) {
      transaction(() => {
        dropKey.run(node)
        dropSecrets.run(node)
      })
      // The old pages live on in the WAL until it is emptied; secure_delete has zeroed those in the file.
      const { busy } = emptyWal.get() as { busy: number }
      if (busy)
        throw new VaultError('unavailable', `a reader of ${path} keeps old pages of node ${node}: shred it again`)
    },
    close: () => db.close(),
  }
}

type Place = readonly (string | number)[]

/** nonce, tag, ciphertext. `place` is bound in: a row moved to another node, name or version does not open. */
const seal = (key: Buffer, plain: Uint8Array, place: Place): Buffer => {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(JSON.stringify(place)))
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
}

const unseal = (key: Buffer, sealed: Uint8Array, place: Place): Buffer => {
  const bytes = Buffer.from(sealed)
  try {
    const cipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    cipher.setAAD(Buffer.from(JSON.stringify(place)))
    cipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES))
    return Buffer.concat([cipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), cipher.final()])
  } catch (error) {
    throw new VaultError('damaged', `${place.join(' ')} in the vault is not what was put there`, { cause: error })
  }
}

const CHECK: Place = ['check']

const openDatabase = (path: string, wrapping: Buffer): DatabaseSync => {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path)
    if (path !== ':memory:') chmodSync(path, 0o600)
    const { version } = db.prepare('SELECT user_version AS version FROM pragma_user_version').get() as {
      version: number
    }
    if (version > SCHEMA_VERSION) throw new VaultError('unavailable', `the vault ${path} is of a newer version`)
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON')
    if (version === 0) {
      db.exec(`BEGIN IMMEDIATE; ${SCHEMA}`)
      db.prepare('INSERT INTO vault VALUES (?)').run(seal(wrapping, Buffer.alloc(KEY_BYTES), CHECK))
      db.exec('COMMIT')
    }
    const { check_value } = db.prepare('SELECT check_value FROM vault').get() as { check_value: Uint8Array }
    try {
      unseal(wrapping, check_value, CHECK)
    } catch (error) {
      throw new VaultError('wrong-master-key', `the vault ${path} was made with another master key`, { cause: error })
    }
    return db
  } catch (error) {
    db?.close()
    if (error instanceof VaultError) throw error
    throw new VaultError('unavailable', `the vault ${path} cannot be opened: ${(error as Error).message}`, {
      cause: error,
    })
  }
}
