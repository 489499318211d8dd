/** Bloomery itself, as a process inside a rack's network; its API is reached from this machine's loopback. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import type { Rack } from './rack.ts'
import { textOf, until } from './run.ts'

const READY_DEADLINE_MS = 30_000
const END_DEADLINE_MS = 15_000
/** How much of the service's log is told when it ends unexpectedly. */
const MAX_QUOTE_CHARS = 3_000
const ROOT = resolve(import.meta.dirname, '../..')

export type RackService = {
  /** http://127.0.0.1:8080 */
  readonly url: string
  readonly pid: number
  /** As the kernel's OOM killer would: nothing is told, nothing is finished. */
  kill(): Promise<void>
  /** As an operator would. @throws Error when it had to be killed, or did not end with 0 */
  stop(): Promise<void>
  readonly exited: Promise<number | null>
}

export type RackServiceOptions = {
  /** Its data: kept by whoever gave it, so that a second service finds what the first has left. */
  readonly data_dir: string
  readonly ramdisk_dir: string
  readonly image_dirs: readonly string[]
  /** 0 for any that is free. */
  readonly port: number
  readonly log_file: string
  readonly env?: Readonly<Record<string, string>>
}

export const startRackService = async (rack: Rack, options: RackServiceOptions): Promise<RackService> => {
  const { data_dir, ramdisk_dir, image_dirs, log_file, env = {} } = options
  mkdirSync(data_dir, { recursive: true })
  const { fd, port, release } = await openSocket(options.port)
  const { interface: nic, address, address6, prefix } = rack.provisioning
  const [command = '', ...args] = rack.exec([process.execPath, join(ROOT, 'src/main.ts')])
  const child = spawn(command, args, {
    cwd: ROOT,
    // The listening socket stays in this machine's network, though the process that accepts on it is in the rack's.
    stdio: ['ignore', 'pipe', 'pipe', fd],
    env: {
      PATH: process.env['PATH'],
      NODE_NO_WARNINGS: '1',
      BLOOMERY_API: 'fd:3',
      BLOOMERY_DATA: data_dir,
      BLOOMERY_PROVISIONING_INTERFACE: nic,
      BLOOMERY_PROVISIONING_ADDRESS: address,
      BLOOMERY_PROVISIONING_ADDRESS6: address6,
      BLOOMERY_PROVISIONING_PREFIX: String(prefix),
      BLOOMERY_RAMDISK: ramdisk_dir,
      BLOOMERY_CONSOLES: 'ttyS0,115200n8',
      BLOOMERY_IMAGE_FOLDERS: image_dirs.join(':'),
      ...env,
    },
  })
  release()
  const log = createWriteStream(log_file, { flags: 'a' })
  child.stdout?.pipe(log, { end: false })
  child.stderr?.pipe(log, { end: false })
  const exited = new Promise<number | null>((done) => child.once('exit', (code) => done(code)))
  const url = `http://127.0.0.1:${port}`
  try {
    await until('the service to be ready', READY_DEADLINE_MS, async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the service ended: ${endOf(log_file)}`)
      return (await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2_000) }).catch(() => null))?.ok
    })
  } catch (error) {
    await end(child, exited)
    throw error
  }
  return {
    url,
    pid: child.pid ?? -1,
    exited,
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
    async stop() {
      child.kill('SIGTERM')
      const code = await Promise.race([
        exited,
        new Promise<'late'>((late) => setTimeout(late, END_DEADLINE_MS, 'late')),
      ])
      if (code === 'late') {
        child.kill('SIGKILL')
        throw new Error(`the service did not end within ${END_DEADLINE_MS} ms`)
      }
      if (code !== 0 && child.signalCode === null)
        throw new Error(`the service ended with code ${code}: ${endOf(log_file)}`)
    },
  }
}

const endOf = (log_file: string) => textOf(log_file).slice(-MAX_QUOTE_CHARS)

const end = async (child: ChildProcess, exited: Promise<unknown>) => {
  child.kill('SIGKILL')
  await exited
}

/** A listening socket on loopback to be handed to a child; `release` closes this process's end of it. */
const openSocket = (port: number) =>
  new Promise<{ fd: number; port: number; release: () => void }>((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const { fd } = (server as unknown as { _handle: { fd: number } })._handle
      resolve({ fd, port: (server.address() as { port: number }).port, release: () => server.close() })
    })
  })
