/** A real IPMI controller for tests: OpenIPMI's `ipmi_sim` on a loopback address of its own, with a chassis kept in files. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { PowerState } from '../../src/bmc/port.ts'
import { sensorRecords } from '../lab/bmc-emulator.ts'
import { CHASSIS_PROGRAM, emulatorCommands, lanConfig } from './bmc-sim-files.ts'

/** How the chassis takes its commands; what is left out stays as it was. */
export type Behaviour = {
  /** `ignored` is the liar: accepted, and nothing happens. `strict` refuses to go where it is already. `dies` takes the controller with it. */
  readonly power?: 'obeyed' | 'ignored' | 'refused' | 'strict' | 'dies'
  readonly softOff?: 'obeyed' | 'ignored'
  /** A power command shows only after so many reads of the power state. */
  readonly readsUntilShown?: number
}

export type BmcSim = {
  /** As the driver's options; the controller knows cipher suites 0 to 3 only. */
  readonly options: {
    readonly address: string
    readonly port: number
    readonly username: string
    readonly cipher_suite: 3
  }
  readonly secrets: { readonly password: string }
  /** Every request that reached the chassis, as `set power 1`, oldest first; reads are left out. */
  commands(): Promise<string[]>
  /** The chassis itself, past the controller: what a hand on the front panel does. */
  press(state: PowerState): Promise<void>
  behave(how: Behaviour): Promise<void>
  setTemperature(celsius: number): Promise<void>
  /** The controller drops dead, without a word; its chassis stays as it is. */
  crash(): Promise<void>
  /** Stands still with its socket open (SIGSTOP), until `start`. */
  hang(): void
  start(): Promise<void>
  close(): Promise<void>
}

/** What a test context offers; anything with `after` will do. */
export type Scope = { after(cleanup: () => Promise<void>): void }

export async function startBmc(scope: Scope): Promise<BmcSim> {
  const dir = await mkdtemp(join(tmpdir(), 'bmc-sim-'))
  let child: ChildProcess | undefined
  const stop = async () => {
    const running = child
    child = undefined
    if (running?.pid === undefined || running.exitCode !== null || running.signalCode !== null) return
    running.kill('SIGKILL')
    await once(running, 'exit')
  }
  const close = async () => {
    await stop()
    await rm(dir, { recursive: true, force: true })
  }
  scope.after(close)

  const address = freshAddress()
  const port = await freePort(address)
  const file = (name: string) => join(dir, name)
  const write = (name: string, value: string | number) => writeFile(file(name), `${value}\n`)
  await writeFile(file('chassis'), CHASSIS_PROGRAM, { mode: 0o700 })
  await writeFile(file('lan.conf'), lanConfig({ dir, address, port, users: USERS }), { mode: 0o600 })
  await writeFile(file('bmc.emu'), emulatorCommands(file('temperature')))
  await writeFile(file('sdr.txt'), sensorRecords())
  await mkdir(file('state/ipmi_sim/bmc'), { recursive: true })
  await promisify(execFile)('sdrcomp', ['-o', file('state/ipmi_sim/bmc/sdr.20.main'), file('sdr.txt')])
  const first = { power: 0, boot: 'none', temperature: 45, late: 0, mode: 'obeyed', soft_off: 'obeyed', commands: '' }
  for (const [name, value] of Object.entries(first)) await write(name, value)

  const start = async () => {
    if (child?.exitCode === null && child.signalCode === null) {
      child.kill('SIGCONT')
    } else {
      const args = ['-n', '-c', file('lan.conf'), '-f', file('bmc.emu'), '-s', file('state')]
      // Dies with us, should the test process be killed before it can clean up.
      child = spawn('setpriv', ['--pdeathsig', 'KILL', 'ipmi_sim', ...args], { stdio: ['ignore', 'ignore', 'ignore'] })
      await once(child, 'spawn')
      await writeFile(file('pid'), String(child.pid))
    }
    await answers(address, port)
  }
  await start()

  return {
    options: { address, port, username: 'admin', cipher_suite: 3 },
    secrets: { password: USERS.admin.password },
    commands: async () => (await readFile(file('commands'), 'utf8')).split('\n').filter(Boolean),
    press: (state) => write('power', state === 'on' ? 1 : 0),
    async behave({ power, softOff, readsUntilShown }) {
      if (power) await write('mode', power)
      if (softOff) await write('soft_off', softOff)
      if (readsUntilShown !== undefined) await write('late', readsUntilShown)
    },
    setTemperature: (celsius) => write('temperature', celsius),
    crash: stop,
    hang: () => void child?.kill('SIGSTOP'),
    start,
    close,
  }
}

export const USERS = {
  admin: { id: 2, password: 'Sesame-0pen-sim', privilege: 'admin' },
  operator: { id: 3, password: 'Barley-0pen-sim', privilege: 'operator' },
} as const

let count = 0
/** 127.64.0.0/10 by process and number, so that tests in parallel processes do not meet. */
function freshAddress(): string {
  count += 1
  return `127.${64 + ((process.pid >> 8) & 63)}.${process.pid & 255}.${1 + (count % 250)}`
}

async function freePort(address: string): Promise<number> {
  const socket = createSocket('udp4').bind(0, address)
  await once(socket, 'listening')
  const { port } = socket.address()
  await new Promise<void>((resolve) => socket.close(() => resolve()))
  return port
}

/** Resolves when the controller answers Get Channel Authentication Capabilities, which needs no session. @see IPMI 2.0 §22.13 */
async function answers(address: string, port: number): Promise<void> {
  const socket = createSocket('udp4')
  // Until it has bound its socket, each try comes back as "connection refused".
  socket.on('error', () => {})
  const ask = () => socket.send(GET_AUTH_CAPABILITIES, port, address)
  const again = setInterval(ask, ASK_AGAIN_MS)
  try {
    ask()
    await once(socket, 'message', { signal: AbortSignal.timeout(START_DEADLINE_MS) })
  } catch (cause) {
    throw new Error(`ipmi_sim gives no answer at ${address}:${port}`, { cause })
  } finally {
    clearInterval(again)
    socket.close()
  }
}

const START_DEADLINE_MS = 10_000
const ASK_AGAIN_MS = 20
const GET_AUTH_CAPABILITIES = Buffer.from('0600ff07000000000000000000092018c88100388e04b5', 'hex')
