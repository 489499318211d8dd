/** Runs one short command of the lab to its end, with a deadline, and turns its failure into words. */

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const COMMAND_DEADLINE_MS = 30_000
const POLL_MS = 20

export type RunOptions = { readonly deadline_ms?: number; readonly input?: string }
export type Outcome = { readonly code: number | null; readonly stdout: string; readonly stderr: string }

/** @returns its standard output @throws Error naming the command, its exit code and what it said */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await outcomeOf(argv, options)
  if (code !== 0) throw new Error(`${argv.join(' ')}: exit ${code}: ${stderr.trim() || stdout.trim()}`)
  return stdout
}

/** Like {@link run}, for a command that may fail: the exit code is the caller's to judge (null: it was killed). */
export function outcomeOf(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const [command = '', ...rest] = argv
  return new Promise((resolve, reject) => {
    const child = spawn(command, rest, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      timeout: options.deadline_ms ?? COMMAND_DEADLINE_MS,
      killSignal: 'SIGKILL',
    })
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text) => {
      stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      stderr += text
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
    child.stdin?.on('error', () => {}) // it may end before it has read everything; its exit code tells
    child.stdin?.end(options.input)
  })
}

/** Asks again until the answer is neither undefined nor false. @throws Error `<what>: not within <n> ms` */
export async function until<T>(what: string, deadline_ms: number, ask: () => T | Promise<T>) {
  const end = performance.now() + deadline_ms
  for (;;) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer as Exclude<T, undefined | false>
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline_ms} ms`)
    await sleep(POLL_MS)
  }
}

/** Empty when the file is not there. */
export function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
