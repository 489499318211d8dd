/** What the benchmarks share: medians, percentiles, folders that go away, and tables on the terminal. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const print = (text: string): void => void process.stdout.write(`${text}\n`)

export const quantile = (all: readonly number[], q: number): number =>
  all.toSorted((a, b) => a - b)[Math.min(all.length - 1, Math.floor(all.length * q))] ?? 0
export const median = (all: readonly number[]): number => quantile(all, 0.5)

export const withFolder = async <T>(work: (dir: string) => Promise<T>): Promise<T> => {
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-bench-'))
  try {
    return await work(dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Numbers to the right, words to the left, each column as wide as it must be. */
export const table = (rows: readonly (readonly (string | number)[])[]): string => {
  const cells = rows.map((row) => row.map(shown))
  const width = (column: number) => Math.max(...cells.map((row) => row[column]?.length ?? 0))
  return cells
    .map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(width(i)) : cell.padStart(width(i)))).join('   '))
    .join('\n')
}

const shown = (cell: string | number): string => {
  if (typeof cell === 'string') return cell
  return Math.abs(cell) >= 100 ? cell.toFixed(0) : cell.toFixed(cell < 10 ? 2 : 1)
}
