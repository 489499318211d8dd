/** The service as an operator runs it: a process of its own, which may be stopped, killed without warning, started again. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const ROOT = join(import.meta.dirname, '../..')
/** From the start of the process to its word that it is ready. */
const START_DEADLINE_MS = 60_000
/** From being asked to end to having ended; then it is killed. */
const STOP_DEADLINE_MS = 10_000
/** Of what it printed, so much is kept to be shown when it fails. */
const OUTPUT_LINES = 200
/** Linux counts processor time in hundredths of a second (USER_HZ), on every architecture that we know. */
const TICK_MS = 10

export type ServiceProcess = {
  readonly pid: number
  /** Where its API listens. */
  readonly url: string
  /** From its start to "ready". */
  readonly start_ms: number
  /** Its last lines of log. */
  output(): string
  /** Asks it to end, and waits until it has. */
  stop(): Promise<void>
  /** Ends it as a power cut would, and waits until it is gone. Safe to repeat. */
  kill(): Promise<void>
}

export type ProcessOptions = {
  readonly data_dir: string
  /** Settings beside the folder and the address, by their full names. */
  readonly env?: Readonly<Record<string, string>>
  /** For Node itself, such as `--cpu-prof`. */
  readonly node_args?: readonly string[]
}

/** @throws when the process ends, or says nothing, instead of becoming ready; then it is gone */
export const startProcess = async ({ data_dir, env = {}, node_args = [] }: ProcessOptions): Promise<ServiceProcess> => {
  const started = performance.now()
  // It dies with the thread that started it: a runner that is killed leaves no service behind.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, ...node_args, 'src/main.ts'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      NODE_ENV: 'production',
      // Halves what a start costs, from the second on: tests start many.
      NODE_COMPILE_CACHE: join(ROOT, '.cache/compiled'),
      BLOOMERY_API: '127.0.0.1:0',
      BLOOMERY_DATA: data_dir,
      ...env,
    },
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(`ended with ${signal ?? code}`))
  })
  const lines: string[] = []
  const kill = async () => {
    child.kill('SIGKILL')
    await ended
  }
  try {
    const url = await Promise.race([
      readyLine(child, lines),
      ended.then((how): never => fail(`the service ${how} before it was ready`, lines)),
      deadline(START_DEADLINE_MS).then((): never => fail('the service did not become ready', lines)),
    ])
    return {
      pid: child.pid as number,
      url,
      start_ms: performance.now() - started,
      output: () => lines.join('\n'),
      kill,
      async stop() {
        child.kill('SIGTERM')
        const late = deadline(STOP_DEADLINE_MS).then(() => 'late')
        if ((await Promise.race([ended, late])) !== 'late') return
        await kill()
        fail('the service did not end when asked', lines)
      },
    }
  } catch (error) {
    await kill()
    throw error
  }
}

/** Resolves with the address in the line that says the service is ready; keeps all lines. */
const readyLine = (child: ChildProcess, lines: string[]): Promise<string> =>
  new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      if (!stream) continue
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line)
        if (lines.length > OUTPUT_LINES) lines.shift()
        const found = /"api":"([^"]+)","msg":"ready"/.exec(line)?.[1]
        if (found) resolve(found)
      })
    }
  })

const deadline = (after_ms: number) => new Promise<void>((resolve) => setTimeout(resolve, after_ms).unref())

const fail = (what: string, lines: readonly string[]): never => {
  throw new Error(`${what}; it printed:\n${lines.join('\n')}`)
}

/** Processor time that a process has used, user and system together. */
export const cpu_ms = (pid: number): number => {
  // The name of the program is in parentheses and may hold anything: the fields are counted behind it (proc(5)).
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

/** Memory that a process occupies now. */
export const rss_mib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
