/** Secrets at rest: not to be found in the files, not to be opened with another key, gone once shredded. */
import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import { openVault, type Vault, VaultError } from '../src/vault.ts'
import { type MasterKey, MasterKeyError, masterKeyFrom, tokenFor } from '../src/vault-key.ts'
import { directory } from './support/store-directory.ts'

const CANARY = 'canary-7f3a9e51c0d84b62'

const key = (digit: string): MasterKey => masterKeyFrom({ value: digit.repeat(64), file: '' })
const start = (t: TestContext) => {
  const dir = directory(t)
  const path = join(dir, 'vault.sqlite')
  const open = (masterKey = key('a')): Vault => {
    const vault = openVault({ path, masterKey })
    t.after(() => {
      try {
        vault.close()
      } catch {
        // The test closed it.
      }
    })
    return vault
  }
  return { dir, path, open, vault: open() }
}
const code = (expected: string) => (error: unknown) => error instanceof VaultError && error.code === expected
const everyByte = (dir: string) => Buffer.concat(readdirSync(dir).map((name) => readFileSync(join(dir, name))))

suite('the vault', () => {
  test('gives back what was put, text or object, by version, also after a restart', (t) => {
    const { vault, open } = start(t)
    assert.equal(vault.put('n1', 'bmc', { username: 'admin', password: 'ö' }), 1)
    assert.equal(vault.put('n1', 'bmc', 'second'), 2)
    assert.equal(vault.put('n2', 'bmc', 'other'), 1)
    vault.close()
    const again = open()
    assert.deepEqual(again.get('n1', 'bmc'), { value: 'second', version: 2 })
    assert.deepEqual(again.get('n1', 'bmc', 1), { value: { username: 'admin', password: 'ö' }, version: 1 })
    assert.deepEqual(again.get('n2', 'bmc'), { value: 'other', version: 1 })
    assert.equal(again.get('n1', 'bmc', 3), null)
    assert.equal(again.get('n1', 'chap'), null)
    assert.equal(again.get('nobody', 'bmc'), null)
  })

  test('has no secret in its files, nor the master key, nor is it open to others', (t) => {
    const { dir, path, vault } = start(t)
    vault.put('n1', 'bmc', { password: CANARY })
    vault.put('n1', 'chap', CANARY)
    for (const secret of [CANARY, Buffer.from(CANARY).toString('base64').slice(0, 20), Buffer.alloc(32, 0xaa)])
      assert.ok(!everyByte(dir).includes(secret))
    vault.close()
    assert.ok(!everyByte(dir).includes(CANARY))
    assert.ok(everyByte(dir).includes('chap'))
    assert.equal(statSync(path).mode & 0o077, 0)
  })

  test('does not open with another master key, and says so', (t) => {
    const { vault, open } = start(t)
    vault.put('n1', 'bmc', CANARY)
    vault.close()
    assert.throws(() => open(key('b')), code('wrong-master-key'))
    assert.equal(open().get('n1', 'bmc')?.value, CANARY)
  })

  test('forgets a node that was shredded, and only that one, for good', (t) => {
    const { dir, path, vault, open } = start(t)
    vault.put('n1', 'bmc', CANARY)
    vault.put('n2', 'bmc', 'kept')
    const db = new DatabaseSync(path)
    const { sealed } = db.prepare("SELECT sealed FROM secrets WHERE node = 'n1'").get() as { sealed: Uint8Array }
    const { wrapped } = db.prepare("SELECT wrapped FROM keys WHERE node = 'n1'").get() as { wrapped: Uint8Array }
    db.close()
    assert.ok(everyByte(dir).includes(wrapped))
    vault.shred('n1')
    vault.shred('n1')
    assert.ok(!everyByte(dir).includes(wrapped), 'the wrapped key is still in a file')
    assert.ok(!everyByte(dir).includes(sealed), 'the sealed secret is still in a file')
    assert.throws(() => vault.get('n1', 'bmc'), code('shredded'))
    assert.throws(() => vault.put('n1', 'bmc', 'new'), code('shredded'))
    vault.close()
    const again = open()
    assert.throws(() => again.get('n1', 'bmc'), code('shredded'))
    assert.equal(again.get('n2', 'bmc')?.value, 'kept')
    again.shred('never-seen')
    assert.throws(() => again.put('never-seen', 'bmc', 'late'), code('shredded'))
  })

  test('says when a reader keeps the old pages alive, and shreds them once it is gone', (t) => {
    const { dir, path, vault } = start(t)
    vault.put('n1', 'bmc', CANARY)
    const reader = new DatabaseSync(path)
    reader.exec('BEGIN')
    const { wrapped } = reader.prepare('SELECT wrapped FROM keys').get() as { wrapped: Uint8Array }
    assert.throws(() => vault.shred('n1'), /a reader of .* shred it again/)
    assert.throws(() => vault.get('n1', 'bmc'), code('shredded'))
    reader.close()
    vault.shred('n1')
    assert.ok(!everyByte(dir).includes(wrapped))
  })

  test('notices every change: a flipped bit, a row put in the place of another, a key of another node', (t) => {
    const { path, vault } = start(t)
    vault.put('n1', 'bmc', 'one')
    vault.put('n1', 'bmc', 'two')
    vault.put('n1', 'chap', 'three')
    vault.put('n2', 'bmc', 'four')
    const tampered = (sql: string, node = 'n1', name = 'bmc') => {
      const db = new DatabaseSync(path)
      const saved = { keys: db.prepare('SELECT * FROM keys').all(), secrets: db.prepare('SELECT * FROM secrets').all() }
      db.function('flip', (blob) =>
        Buffer.from(blob as Uint8Array).map((byte, i, all) => (i === all.length - 1 ? byte ^ 1 : byte)),
      )
      db.exec(sql)
      assert.throws(() => vault.get(node, name), code('damaged'), sql)
      db.exec('DELETE FROM keys; DELETE FROM secrets')
      for (const row of saved.keys) db.prepare('INSERT INTO keys VALUES (?, ?)').run(...Object.values(row))
      for (const row of saved.secrets) db.prepare('INSERT INTO secrets VALUES (?, ?, ?, ?)').run(...Object.values(row))
      db.close()
    }
    const sealedOf = (where: string) => `(SELECT sealed FROM secrets WHERE ${where})`
    tampered('UPDATE secrets SET sealed = flip(sealed)')
    tampered('UPDATE keys SET wrapped = flip(wrapped)')
    tampered("UPDATE secrets SET sealed = x'00'")
    tampered('UPDATE secrets SET sealed = substr(sealed, 1, 20)')
    tampered(
      `UPDATE secrets SET sealed = ${sealedOf("node = 'n1' AND name = 'bmc' AND version = 1")} WHERE version = 2`,
    )
    tampered(`UPDATE secrets SET sealed = ${sealedOf("name = 'chap'")} WHERE node = 'n1' AND name = 'bmc'`)
    tampered(`UPDATE secrets SET sealed = ${sealedOf("node = 'n2'")} WHERE node = 'n1'`)
    tampered("UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE node = 'n2') WHERE node = 'n1'")
    tampered("DELETE FROM keys WHERE node = 'n1'")
    assert.equal(vault.get('n1', 'bmc')?.value, 'two')
  })

  test('refuses a secret that is too large, and a file of a newer version', (t) => {
    const { path, vault, open } = start(t)
    assert.throws(() => vault.put('n1', 'bmc', 'x'.repeat(70_000)), code('refused'))
    vault.close()
    const db = new DatabaseSync(path)
    db.exec('PRAGMA user_version = 9')
    db.close()
    assert.throws(() => open(), code('unavailable'))
  })
})

suite('the master key', () => {
  test('is made once, for its owner only, and is the same ever after', (t) => {
    const dir = directory(t)
    const file = join(dir, 'master.key')
    const first = masterKeyFrom({ file })
    assert.equal(statSync(file).mode & 0o777, 0o600)
    assert.deepEqual(readdirSync(dir), ['master.key'])
    assert.deepEqual(masterKeyFrom({ file }).bytes(), first.bytes())
    assert.equal(first.bytes().length, 32)
    assert.notDeepEqual(masterKeyFrom({ file: join(dir, 'other.key') }).bytes(), first.bytes())
  })

  test('is refused when others may read its file, when it is no key, or where no file can be', (t) => {
    const file = join(directory(t), 'master.key')
    masterKeyFrom({ file })
    chmodSync(file, 0o640)
    assert.throws(() => masterKeyFrom({ file }), /MasterKeyError: others may read .* \(mode 640\): chmod 600/)
    chmodSync(file, 0o600)
    writeFileSync(file, 'short')
    assert.throws(() => masterKeyFrom({ file }), MasterKeyError)
    assert.throws(() => masterKeyFrom({ file: join(file, 'below') }), MasterKeyError)
    for (const value of ['x', 'g'.repeat(64), 'a'.repeat(63)])
      assert.throws(
        () => masterKeyFrom({ value, file }),
        (error: Error) => !error.message.includes(value.repeat(9)),
      )
  })

  test('comes from a value in hex or base64 as well, and does not show itself', () => {
    const bytes = Buffer.from('a'.repeat(64), 'hex')
    for (const value of [bytes.toString('hex'), bytes.toString('base64'), `${bytes.toString('base64url')}\n`])
      assert.deepEqual(masterKeyFrom({ value, file: '' }).bytes(), bytes)
    assert.doesNotMatch(inspect(key('a')) + JSON.stringify(key('a')), /aa/)
  })

  test('makes tokens that are the same for one purpose and different for every other purpose and key', () => {
    const token = tokenFor(key('a'), 'agent node-1 7')
    assert.match(token, /^[\w-]{43}$/)
    assert.equal(tokenFor(key('a'), 'agent node-1 7'), token)
    assert.notEqual(tokenFor(key('a'), 'agent node-1 8'), token)
    assert.notEqual(tokenFor(key('b'), 'agent node-1 7'), token)
  })
})
