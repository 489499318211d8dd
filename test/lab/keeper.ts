/**
 * Holds what must not outlive a rack: a network namespace, and a process namespace whose end is the end of every process
 * in it. The kernel does the ending, so a test that is killed with SIGKILL leaves no BMC and no machine running.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { outcomeOf, run, textOf, until } from './run.ts'

const REGISTRY = '/run/bloomery-lab' // one file per rack, so that the next run finds what a killed one has left
const END_DEADLINE_MS = 10_000
const START_DEADLINE_MS = 10_000

export type Keeper = {
  readonly namespace: string
  /** Starts a daemon in the rack that dies with this process. What *it* starts dies with the rack, not with it. */
  spawn(argv: readonly string[], log: number): ChildProcess
  /** The command line of a process of the rack by the number that it has *in* the rack; empty when it is gone. */
  commandLine(pid: string): string
  /** Ends every process of the rack and the namespaces. Returns the command lines of strays (see {@link endRack}). */
  end(): Promise<readonly string[]>
}

export async function openKeeper(dir: string, keep: 'nothing' | 'files'): Promise<Keeper> {
  const namespace = `bloomery-${randomBytes(4).toString('hex')}`
  const registration: Registration = { namespace, dir, keep, owner: process.pid, owner_started: startOf(process.pid) }
  mkdirSync(REGISTRY, { recursive: true })
  writeFileSync(join(REGISTRY, namespace), JSON.stringify(registration))
  let holder: ChildProcess | undefined
  let first = 0
  async function end(): Promise<readonly string[]> {
    if (holder && holder.exitCode === null && holder.signalCode === null) {
      const gone = once(holder, 'exit', { signal: AbortSignal.timeout(END_DEADLINE_MS) })
      // The holder's end is the end of all only if the first process goes first: it is reaped after all the others.
      process.kill(first || (holder.pid ?? 0), 'SIGKILL')
      await gone
    }
    return endRack(registration)
  }
  try {
    await run(['ip', 'netns', 'add', namespace])
    // The first process of a process namespace inherits orphans (every QEMU is one): dash's wait reaps them all.
    const reaper = 'echo up; while :; do sleep 3600 & wait; done'
    const holding = [
      'ip',
      'netns',
      'exec',
      namespace,
      'unshare',
      '--pid',
      '--fork',
      '--kill-child=KILL',
      '--mount-proc',
    ]
    holder = spawn('setpriv', ['--pdeathsig', 'KILL', ...holding, 'sh', '-c', reaper], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    if (holder.stdout) await once(holder.stdout, 'data', { signal: AbortSignal.timeout(START_DEADLINE_MS) })
    first = Number(textOf(`/proc/${holder.pid}/task/${holder.pid}/children`))
  } catch (cause) {
    await end()
    throw new Error(`no namespaces for a rack in ${dir} (root is needed)`, { cause })
  }
  // -F: the daemon itself stays outside the process namespace, where we know its number; its children are born inside.
  const entering = ['--pdeathsig', 'KILL', 'nsenter', '-F', '-t', String(first), '-p', '-m', '-n']
  return {
    namespace,
    spawn: (argv, log) => spawn('setpriv', [...entering, ...argv], { stdio: ['ignore', log, log] }),
    commandLine: (pid) => textOf(`/proc/${first}/root/proc/${pid}/cmdline`).replaceAll('\0', ' '),
    end,
  }
}

/** Clears away the racks whose owner is gone. @returns their namespaces */
export async function sweepRacks(): Promise<readonly string[]> {
  const stale = registrations().filter((rack) => startOf(rack.owner) !== rack.owner_started)
  for (const rack of stale) await endRack(rack)
  return stale.map((rack) => rack.namespace)
}

/** Clears away what a killed run has left in this directory. @throws Error when the rack's owner is still alive */
export async function stopStaleRack(dir: string): Promise<void> {
  for (const rack of registrations().filter((rack) => rack.dir === dir)) {
    if (startOf(rack.owner) === rack.owner_started)
      throw new Error(`the rack in ${dir} belongs to process ${rack.owner}`)
    await endRack(rack)
  }
}

type Registration = {
  readonly namespace: string
  readonly dir: string
  readonly keep: 'nothing' | 'files'
  readonly owner: number
  readonly owner_started: string
}

/** Strays are processes that others started in the network namespace and left there, such as a service under test. */
async function endRack({ namespace, dir, keep }: Registration): Promise<readonly string[]> {
  const strays: string[] = []
  await until(`the processes in ${namespace} end`, END_DEADLINE_MS, async () => {
    const pids = (await outcomeOf(['ip', 'netns', 'pids', namespace])).stdout.split('\n').filter(Boolean).map(Number)
    for (const pid of pids) {
      const line = textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()
      if (line && !strays.includes(line)) strays.push(line)
      try {
        process.kill(pid, 'SIGKILL')
      } catch {} // gone since it was listed
    }
    return pids.length === 0
  })
  const removed = await outcomeOf(['ip', 'netns', 'del', namespace])
  if (removed.code !== 0 && namespaces().includes(namespace)) throw new Error(removed.stderr)
  if (keep === 'nothing') rmSync(dir, { recursive: true, force: true })
  rmSync(join(REGISTRY, namespace), { force: true })
  return strays
}

function registrations(): readonly Registration[] {
  return listOf(REGISTRY).flatMap((name) => {
    const text = textOf(join(REGISTRY, name))
    return text ? [JSON.parse(text) as Registration] : []
  })
}

const namespaces = () => listOf('/run/netns')

/**
 * When a process began, in ticks since boot: with its number, what tells it from a later one of the same number. Empty when it is gone,
 * also when it is dead and its parent has not looked yet.
 */
function startOf(pid: number): string {
  const stat = textOf(`/proc/${pid}/stat`)
  const [state = '', ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return state === 'Z' || state === 'X' ? '' : (rest[18] ?? '')
}

function listOf(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
