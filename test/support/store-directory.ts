/** Directories for a store's files that go away with the test: a plain one, and one on a disk small enough to fill. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

export const directory = (t: Pick<TestContext, 'after'>): string => {
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-store-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A file system of its own in memory, or null where this user may not mount one. */
export const smallDisk = (t: Pick<TestContext, 'after'>, mib: number): string | null => {
  if (process.getuid?.() !== 0) return null
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', dir], { stdio: 'pipe' })
  } catch {
    rmSync(dir, { recursive: true })
    return null
  }
  t.after(() => {
    execFileSync('umount', ['--lazy', dir])
    rmSync(dir, { recursive: true })
  })
  return dir
}
