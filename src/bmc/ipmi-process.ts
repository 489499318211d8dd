/** Runs one short program to its end, whatever happens: with a deadline, a bounded output and an abort that kills it. */
import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'

/** A full system event log of 4,000 entries is about 400 KiB. */
export const MAX_OUTPUT_BYTES = 4 * 1024 * 1024

export type RunLimits = {
  /** Besides PATH, all that the program sees of our environment. */
  readonly env: Readonly<Record<string, string>>
  readonly deadline_ms: number
  readonly signal: AbortSignal
}

/** `exit` is null when the program did not end by itself; then `stopped` says by whom, or the program died of a signal. */
export type Ran = {
  readonly exit: number | null
  readonly stopped: 'deadline' | 'too-much-output' | null
  readonly stdout: string
  readonly stderr: string
}

/** @throws the signal's reason when it aborts; whatever the system says when the program cannot be started */
export type Run = (program: string, args: readonly string[], limits: RunLimits) => Promise<Ran>

export const runProgram: Run = async (program, args, { env, deadline_ms, signal }) => {
  signal.throwIfAborted()
  const { PATH = '/usr/sbin:/usr/bin:/sbin:/bin' } = process.env
  const { promise, resolve, reject } = Promise.withResolvers<Ran>()
  const child = spawn(program, args, {
    env: { PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stopped: Ran['stopped'] = null
  const kill = (why: Ran['stopped']) => {
    stopped ??= why
    child.kill('SIGKILL')
  }
  const onAbort = () => kill(null)
  const onTooMuch = () => kill('too-much-output')
  const deadline = setTimeout(() => kill('deadline'), deadline_ms)
  signal.addEventListener('abort', onAbort, { once: true })
  const stdout = collect(child.stdout, onTooMuch)
  const stderr = collect(child.stderr, onTooMuch)

  const settle = (end: () => void) => {
    clearTimeout(deadline)
    signal.removeEventListener('abort', onAbort)
    end()
  }
  child.once('error', (error) => settle(() => reject(error)))
  // `close` and not `exit`: the next command must not start before this one is truly gone, and its output is complete.
  child.once('close', (exit) =>
    settle(() =>
      signal.aborted ? reject(signal.reason) : resolve({ exit, stopped, stdout: stdout(), stderr: stderr() }),
    ),
  )
  return promise
}

function collect(stream: Readable, onTooMuch: () => void): () => string {
  const chunks: Buffer[] = []
  let size_bytes = 0
  stream.on('data', (chunk: Buffer) => {
    size_bytes += chunk.length
    if (size_bytes <= MAX_OUTPUT_BYTES) chunks.push(chunk)
    else onTooMuch()
  })
  return () => Buffer.concat(chunks).toString('utf8')
}
