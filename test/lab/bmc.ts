/** A node's BMC: ipmi_sim with its configuration, and the ways in which real BMCs go wrong. */

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, copyFileSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { emulatorCommands } from './bmc-emulator.ts'
import type { Keeper } from './keeper.ts'
import { portsOf } from './machine.ts'
import { textOf, until } from './run.ts'

const START_DEADLINE_MS = 10_000
const END_DEADLINE_MS = 5_000
const IPMI_PORT = 623
const HERE = import.meta.dirname

export type BmcAddress = {
  readonly address: string
  readonly port: number
  readonly username: string
  readonly password: string
  readonly cipher_suite: number
}
export type BmcLogEntry = {
  readonly at: string
  readonly what: 'power-on' | 'power-off' | 'reset' | 'soft-off' | 'boot-device' | 'identify'
  /** The boot device, for power-on, reset and boot-device; the seconds, for identify. */
  readonly detail: string
  readonly outcome: 'done' | 'already' | 'ignored' | 'failed'
}
/** Every switch holds until its opposite is called; all can be called twice. */
export type BmcControl = {
  start(): Promise<void>
  /** The BMC is dead: nothing answers. The machine goes on. */
  kill(): Promise<void>
  /** The BMC hangs: packets reach it, none comes back. */
  freeze(): void
  thaw(): void
  /** Power commands are accepted and nothing happens. */
  lie(): void
  tellTruth(): void
  /** The boot device is accepted and read back, and the next boot does not follow it. */
  forgetBoot(): void
  rememberBoot(): void
  /** The thresholds are 80 (non-critical), 85 (critical) and 96 (non-recoverable); passing one writes to the SEL. */
  setTemperature(celsius: number): void
}

export const bmcAddress = (place: number, password: string): BmcAddress => ({
  address: `127.0.77.${place}`,
  port: IPMI_PORT,
  username: 'admin',
  password,
  cipher_suite: 3, // the best that ipmi_sim has: 17 needs SHA-256, which it lacks
})

/** Writes what ipmi_sim reads. `sdrs` is the compiled sensor repository: without it `sensor` shows nothing. */
export function makeBmc(dir: string, place: number, bmc: BmcAddress, node: BmcIdentity, sdrs: string): void {
  const state = join(dir, 'bmc', 'ipmi_sim', `node${place}`)
  mkdirSync(state, { recursive: true })
  copyFileSync(sdrs, join(state, 'sdr.20.main'))
  writeFileSync(join(dir, 'password'), bmc.password, { mode: 0o600 })
  writeFileSync(join(dir, 'lan.conf'), lanConfiguration(dir, place, bmc, node), { mode: 0o600 })
  writeFileSync(join(dir, 'temperature'), '45\n')
  writeFileSync(join(dir, 'bmc.emu'), emulatorCommands(join(dir, 'temperature'), node.serial))
}

export type BmcIdentity = { readonly serial: string; readonly uuid: string }

export function bmcControl(dir: string, place: number, keeper: Keeper): BmcControl {
  let process: ChildProcess | undefined
  const alive = () => process !== undefined && process.exitCode === null && process.signalCode === null
  const set = (name: string) => writeFileSync(join(dir, name), '')
  const clear = (name: string) => rmSync(join(dir, name), { force: true })
  return {
    async start() {
      if (alive()) return
      const log = openSync(join(dir, 'bmc.log'), 'a', 0o600)
      const files = ['-c', join(dir, 'lan.conf'), '-f', join(dir, 'bmc.emu'), '-s', join(dir, 'bmc')]
      const started = keeper.spawn(['ipmi_sim', '-n', ...files], log)
      process = started
      closeSync(log)
      await once(started, 'spawn')
      await until(`the BMC of node${place} listens`, START_DEADLINE_MS, () => {
        if (!alive()) throw new Error(`ipmi_sim ended: ${textOf(join(dir, 'bmc.log'))}`)
        return listens(started.pid ?? 0, place)
      })
    },
    async kill() {
      if (!process || !alive()) return
      const gone = once(process, 'exit', { signal: AbortSignal.timeout(END_DEADLINE_MS) })
      process.kill('SIGKILL')
      await gone
    },
    freeze: () => void process?.kill('SIGSTOP'),
    thaw: () => void process?.kill('SIGCONT'),
    lie: () => set('lies'),
    tellTruth: () => clear('lies'),
    forgetBoot: () => set('forgets-boot'),
    rememberBoot: () => clear('forgets-boot'),
    setTemperature: (celsius) => writeFileSync(join(dir, 'temperature'), `${Math.round(celsius)}\n`),
  }
}

/** What the BMC was asked to do, oldest first; questions are not in it. */
export function bmcLogOf(dir: string): readonly BmcLogEntry[] {
  const lines = textOf(join(dir, 'bmc.jsonl')).split('\n')
  return lines.filter(Boolean).map((line) => JSON.parse(line) as BmcLogEntry)
}

function lanConfiguration(dir: string, place: number, bmc: BmcAddress, node: BmcIdentity): string {
  const { sol, ipmi } = portsOf(place)
  const methods = 'none md2 md5 straight'
  return `name "node${place}"
set_working_mc 0x20
  startlan 1
    addr ${bmc.address} ${bmc.port}
    priv_limit admin
    allowed_auths_user ${methods}
    allowed_auths_operator ${methods}
    allowed_auths_admin ${methods}
    guid ${Buffer.from(node.uuid.replaceAll('-', ''), 'hex').reverse().toString('hex')}
  endlan
  chassis_control "${join(HERE, 'chassis.sh')} ${dir}"
  serial 15 127.0.0.1 ${ipmi} codec VM
  sol "tcp:127.0.0.1:${sol}" 115200
  user 1 false "" "" user 10 ${methods}
  user 2 true "${bmc.username}" "${bmc.password}" admin 10 ${methods}
`
}

/** Whether a process's namespace has a UDP socket at the BMC's address (the kernel's table, in little-endian hex). */
function listens(pid: number, place: number): boolean {
  const address = `${place.toString(16).padStart(2, '0')}4D007F:026F`.toUpperCase()
  return textOf(`/proc/${pid}/net/udp`).includes(` ${address} `)
}
