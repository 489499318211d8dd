/** Keeps a dnsmasq running for as long as the service runs, and tells it which machines we know. */
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFile, mkdir, rename, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type DhcpHost, type DnsmasqConfig, dnsmasqConfig, dnsmasqHosts } from './dnsmasq-config.ts'
import { dnsmasqLog, type Seen } from './dnsmasq-log.ts'

export type DnsmasqOptions = Omit<DnsmasqConfig, 'tftp_dir' | 'hosts_file' | 'lease_file'> & {
  /** Its configuration, hosts, leases and TFTP files live here; made when missing. */
  readonly dir: string
  readonly hosts?: readonly DhcpHost[]
  readonly onSeen: (seen: Seen) => void
  readonly log: Log
  readonly signal: AbortSignal
  /** Where Debian's package ipxe keeps undionly.kpxe and snponly.efi. */
  readonly ipxe_dir?: string
}

/** As pino's. */
export type Log = Record<'debug' | 'info' | 'warn' | 'error', (fields: object, message: string) => void>

export type Dnsmasq = {
  /** Resolves when it first answers; rejects when the signal aborts before that. */
  readonly ready: Promise<void>
  /** Replaces all known machines. Resolves once dnsmasq has read them, or will when it is back. Calls that come together cost one re-read. */
  setHosts(hosts: readonly DhcpHost[]): Promise<void>
  state(): { readonly pid: number | null; readonly restarts: number; readonly trouble: string | null }
  /** Resolves once it is gone, after the signal aborted. */
  readonly stopped: Promise<void>
}

const RESTART_FIRST_MS = 200
const RESTART_MOST_MS = 30_000
/** A run that lasted this long was healthy: the next restart is prompt again. */
const HEALTHY_MS = 60_000
const TERM_DEADLINE_MS = 2_000
const REREAD_DEADLINE_MS = 5_000
/** Lines kept to tell why it died. */
const LAST_LINES = 5

/**
 * It stays root, for else the kernel would forget to kill it with us; so it gets just what DHCP, router advertisements and
 * low ports need. setgid is there because dnsmasq insists on clearing its groups.
 */
const FENCE = ['--no-new-privs', '--bounding-set=-all,+net_admin,+net_raw,+net_bind_service,+setgid']

export async function superviseDnsmasq(options: DnsmasqOptions): Promise<Dnsmasq> {
  const { signal, log } = options
  const dir = resolve(options.dir)
  const files = { tftp_dir: join(dir, 'tftp'), hosts_file: join(dir, 'hosts'), lease_file: join(dir, 'leases') }
  await mkdir(files.tftp_dir, { recursive: true })
  for (const name of ['undionly.kpxe', 'snponly.efi'])
    await copyFile(join(options.ipxe_dir ?? '/usr/lib/ipxe', name), join(files.tftp_dir, name))
  await replaceFile(join(dir, 'dnsmasq.conf'), dnsmasqConfig({ ...options, ...files }))

  const read = dnsmasqLog(files.tftp_dir)
  const ready = Promise.withResolvers<void>()
  ready.promise.catch(() => {}) // whoever cares awaits it; an abort before that is no accident
  let child: ChildProcess | null = null
  let answering = false
  let restarts = 0
  let trouble: string | null = null
  let written = dnsmasqHosts(options.hosts ?? [])
  await replaceFile(files.hosts_file, written)
  let wanted = written
  /** The file changed while it was starting: it may have read the old one. */
  let changed_unread = false
  /** Who waits for it to read the file again. */
  let reread: (() => void) | null = null
  let update: Promise<void> | null = null

  function take(line: string): void {
    log.debug({ line }, 'dnsmasq')
    if (line.endsWith(`: read ${files.hosts_file}`)) {
      // Last of its start-up lines as well: from here on a SIGHUP is understood, before it would be deadly.
      answering = true
      trouble = null
      if (changed_unread) child?.kill('SIGHUP')
      changed_unread = false
      ready.resolve()
      reread?.()
    }
    const seen = read(line)
    if (seen) options.onSeen(seen)
  }

  async function live(): Promise<void> {
    const last: string[] = []
    const command = process.getuid?.() === 0 ? FENCE : []
    child = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', ...command, '--', 'dnsmasq', '-k', '--log-facility=-', '-C', join(dir, 'dnsmasq.conf')],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' },
      },
    )
    const here = child
    const ended = new Promise<string>((done) => {
      here.once('error', (error) => done(error.message))
      here.once('close', (code, killer) => done(killer ? `killed by ${killer}` : `exit code ${code}`))
    })
    if (here.stderr)
      createInterface({ input: here.stderr }).on('line', (line) => {
        last.push(line)
        if (last.length > LAST_LINES) last.shift()
        take(line)
      })
    const stop = () => {
      here.kill('SIGTERM')
      const hard = setTimeout(() => here.kill('SIGKILL'), TERM_DEADLINE_MS)
      here.once('close', () => clearTimeout(hard))
    }
    signal.addEventListener('abort', stop, { once: true })
    const how = await ended
    signal.removeEventListener('abort', stop)
    child = null
    answering = false
    reread?.()
    if (!signal.aborted) trouble = `${how}: ${last.join(' | ') || 'it said nothing'}`
  }

  async function supervise(): Promise<void> {
    let wait_ms = RESTART_FIRST_MS
    while (!signal.aborted) {
      const began = performance.now()
      await live()
      if (signal.aborted) break
      wait_ms = performance.now() - began > HEALTHY_MS ? RESTART_FIRST_MS : Math.min(wait_ms * 2, RESTART_MOST_MS)
      restarts += 1
      log.error({ trouble, restarts, wait_ms }, 'dnsmasq ended: no node can boot from the network until it is back')
      await delay(wait_ms, undefined, { signal }).catch(() => {})
    }
    ready.reject(signal.reason)
  }

  async function updateHosts(): Promise<void> {
    await delay(0) // let the other calls of this tick in
    while (written !== wanted) {
      const text = wanted
      await replaceFile(files.hosts_file, text)
      written = text
      changed_unread = !answering
      if (!answering || !child) continue // it reads the file when it starts
      const heard = new Promise<void>((done) => {
        reread = done
      })
      child.kill('SIGHUP')
      await Promise.race([heard, delay(REREAD_DEADLINE_MS, undefined, { ref: false })])
      reread = null
    }
  }

  const stopped = supervise()
  return {
    ready: ready.promise,
    stopped,
    state: () => ({ pid: child?.pid ?? null, restarts, trouble }),
    async setHosts(hosts) {
      wanted = dnsmasqHosts(hosts)
      update ??= updateHosts().finally(() => {
        update = null
      })
      await update
    },
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text)
  await rename(`${path}.new`, path)
}
