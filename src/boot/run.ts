/** Runs one outside program to its end: bounded output, killed on abort, and never outliving the service. */
import { spawn } from 'node:child_process'

/** The most of each output stream that is kept, its end: messages are read by people, the rest is progress. */
const KEPT_OUTPUT_BYTES = 65_536

export type Ran = { readonly code: number; readonly stdout: Buffer; readonly stderr: string }

export type RunOptions = {
  readonly signal: AbortSignal
  /** Sees the standard output as it comes (progress meters). */
  readonly onOutput?: (text: string) => void
  /** The most of the standard output that is kept, its end. Default 64 KiB. */
  readonly keep_bytes?: number
  /** An open file that the program finds as /dev/fd/3. */
  readonly fd3?: number
  readonly env?: Readonly<Record<string, string>>
}

export type Run = (argv: readonly string[], options: RunOptions) => Promise<Ran>

/**
 * The program's parent is watched by the kernel: when the service dies, even by kill -9, the program gets SIGKILL, so
 * that no forgotten writer goes on writing to a disk that somebody else was given meanwhile. (The kernel watches the
 * thread that forked; call this from the main thread only.)
 */
export function tied(argv: readonly string[]): readonly [string, ...string[]] {
  return ['setpriv', '--pdeathsig', 'KILL', '--', ...argv]
}

/**
 * Resolves with whatever exit code; a death by signal counts as 128 + 9.
 * @throws the signal's reason after an abort, once the program is gone
 */
export const run: Run = (argv, { signal, onOutput, keep_bytes = KEPT_OUTPUT_BYTES, fd3, env = {} }) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const [command, ...args] = tied(argv)
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe', ...(fd3 === undefined ? [] : [fd3])],
      env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', ...env },
    })
    const stdout = tailOf(keep_bytes)
    const stderr = tailOf(KEPT_OUTPUT_BYTES)
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout.push(chunk)
      onOutput?.(chunk.toString('latin1'))
    })
    child.stderr?.on('data', stderr.push)
    // SIGKILL, not SIGTERM: qemu-img goes on flushing after SIGTERM, and an aborted write is worth nothing anyway.
    const stop = () => child.kill('SIGKILL')
    signal.addEventListener('abort', stop, { once: true })
    child.once('error', (cause) => {
      signal.removeEventListener('abort', stop)
      reject(new Error(`cannot run ${argv[0]}: ${cause.message}`, { cause }))
    })
    child.once('close', (code) => {
      signal.removeEventListener('abort', stop)
      if (signal.aborted) return reject(signal.reason)
      resolve({ code: code ?? 137, stdout: stdout.bytes(), stderr: stderr.bytes().toString('utf8').trim() })
    })
  })

function tailOf(limit_bytes: number) {
  let chunks: Buffer[] = []
  let length = 0
  return {
    push: (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length <= 2 * limit_bytes) return
      chunks = [Buffer.concat(chunks).subarray(-limit_bytes)]
      length = limit_bytes
    },
    bytes: () => Buffer.concat(chunks).subarray(-limit_bytes),
  }
}
