/**
 * A rack of virtual servers for tests: each has a real BMC (IPMI over UDP) that starts and ends a real machine (QEMU), and all hang
 * on one provisioning network in a namespace of their own. DHCP and boot scripts are not here: that is the service under test.
 */

import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type BmcAddress, type BmcControl, type BmcLogEntry, bmcAddress, bmcControl, bmcLogOf, makeBmc } from './bmc.ts'
import { sensorRecords } from './bmc-emulator.ts'
import { type Keeper, openKeeper, sweepRacks } from './keeper.ts'
import { type Disk, type MachineOptions, makeMachine, qmp } from './machine.ts'
import { type Outcome, outcomeOf, run, textOf, until } from './run.ts'

export { stopStaleRack, sweepRacks } from './keeper.ts'

const MAX_NODES = 200 // their addresses end in 1..200
const MAX_DIR_LENGTH = 80 // a socket's path has room for 107 bytes
const LOG_POLL_DEADLINE_MS = 60_000
const SEL_ADD_ENTRY = ['raw', '0x0a', '0x44']

export type RackOptions = Partial<Omit<MachineOptions, 'disks'>> & {
  /** State directory: made here, and removed when the rack stops (unless `keep` is `files`). Empty if it exists. */
  readonly dir: string
  readonly nodes: number
  readonly keep?: 'nothing' | 'files'
  /** Per node; a node beyond the list has one virtio disk of 6 GiB. An empty list is a diskless node. */
  readonly disks?: readonly (readonly Disk[])[]
}

export type RackNode = {
  readonly name: string
  readonly mac: string
  readonly serial: string
  readonly uuid: string
  readonly bmc: BmcAddress
  readonly disk_paths: readonly string[]
  readonly disk_serials: readonly string[]
  readonly dir: string
  readonly console_log: string
}

/** Wherever a method takes a number, it is the node's place in `nodes`, from 0. */
export type Rack = {
  readonly dir: string
  readonly namespace: string
  readonly provisioning: typeof PROVISIONING
  readonly nodes: readonly RackNode[]
  /** The same command, to be run inside the rack's network. */
  exec(argv: readonly string[]): readonly string[]
  /** As an operator at the BMC. The exit code is the caller's to judge. */
  ipmitool(node: number, ...args: readonly string[]): Promise<Outcome>
  bmc(node: number): BmcControl
  bmcLog(node: number): readonly BmcLogEntry[]
  /** Adds an entry to the SEL: a temperature going over its critical threshold. */
  addSelEntry(node: number): Promise<void>
  /** The truth, whatever the BMC says. */
  powerOf(node: number): 'on' | 'off'
  /** Waits for a text on the node's console, from a place in its log on. @throws Error with the log's end */
  consoleShows(node: number, text: string, options?: { from?: number; deadline_ms?: number }): Promise<void>
  consoleOf(node: number): string
  /** The machine hangs: on, and nothing in it moves. */
  pauseNode(node: number): Promise<void>
  resumeNode(node: number): Promise<void>
  /** The network cable: the machine sees its carrier go and come. */
  unplug(node: number): Promise<void>
  plug(node: number): Promise<void>
  /** The machine loses its power, and not by its BMC. */
  cutPower(node: number): Promise<void>
  /** Ends everything. Returns the command lines of what others had left running in the rack's network. */
  stop(): Promise<readonly string[]>
}

export const PROVISIONING = { interface: 'br0', address: '10.77.0.1', prefix: 24, address6: 'fd77::1' } as const

/** Clears away what killed runs have left, then builds a rack whose nodes are all off. @throws Error, leaving nothing */
export async function startRack(options: RackOptions): Promise<Rack> {
  const { nodes: count, keep = 'nothing' } = options
  const dir = resolve(options.dir)
  if (!(count >= 1 && count <= MAX_NODES)) throw new Error(`a rack holds 1 to ${MAX_NODES} nodes, not ${count}`)
  if (dir.length > MAX_DIR_LENGTH || /[\s"',]/.test(dir)) throw new Error(`too long, or awkward for QEMU: ${dir}`)
  await sweepRacks()
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  if (readdirSync(dir).length > 0) throw new Error(`${dir} is not empty`)
  const keeper = await openKeeper(dir, keep)
  try {
    await run(['ip', '-n', keeper.namespace, '-batch', '-'], { input: networkCommands(count) })
    const sdrs = join(dir, 'sdrs.bin')
    writeFileSync(join(dir, 'sdrs'), sensorRecords())
    await run(['sdrcomp', '-o', sdrs, join(dir, 'sdrs')])
    const nodes = Array.from({ length: count }, (_, i) => makeNode(dir, i, options, sdrs))
    const bmcs = nodes.map((node, i) => bmcControl(node.dir, i + 1, keeper))
    await Promise.all(bmcs.map((bmc) => bmc.start()))
    return rackOf(dir, keeper, nodes, bmcs)
  } catch (error) {
    await keeper.end()
    throw error
  }
}

function rackOf(dir: string, keeper: Keeper, nodes: readonly RackNode[], bmcs: readonly BmcControl[]): Rack {
  const exec = (argv: readonly string[]) => ['ip', 'netns', 'exec', keeper.namespace, ...argv]
  const consoleOf = (i: number) => textOf(at(nodes, i).console_log)
  const powerOf = (i: number) => {
    const pidFile = join(at(nodes, i).dir, 'qemu.pid')
    const pid = textOf(pidFile).trim()
    return pid && keeper.commandLine(pid).includes(pidFile) ? 'on' : 'off'
  }
  const ipmitool = (i: number, ...args: readonly string[]) => {
    const { dir, bmc } = at(nodes, i)
    const session = ['-I', 'lanplus', '-C', `${bmc.cipher_suite}`, '-H', bmc.address, '-U', bmc.username]
    return outcomeOf(exec(['ipmitool', ...session, '-f', join(dir, 'password'), '-N', '1', '-R', '2', ...args]))
  }
  /** Both ends of the cable: the bridge stops forwarding, and the machine, if it runs, sees its carrier go. */
  const cable = async (i: number, state: 'up' | 'down') => {
    await run(['ip', '-n', keeper.namespace, 'link', 'set', `tap${i + 1}`, state])
    if (powerOf(i) === 'on') await qmp(at(nodes, i).dir, 'set_link', { name: 'nic0', up: state === 'up' })
  }
  let stopped: Promise<readonly string[]> | undefined
  return {
    ...{ dir, namespace: keeper.namespace, provisioning: PROVISIONING, nodes, exec, ipmitool, powerOf, consoleOf },
    bmc: (i) => at(bmcs, i),
    bmcLog: (i) => bmcLogOf(at(nodes, i).dir),
    async addSelEntry(i) {
      const overCritical = [0, 0, 2, 0, 0, 0, 0, 0x20, 0, 4, 1, 1, 1, 9, 0x5a, 0x55] // IPMI 2.0 §32.1, sensor 1
      const { code, stderr } = await ipmitool(i, ...SEL_ADD_ENTRY, ...overCritical.map(String))
      if (code !== 0) throw new Error(`the SEL of ${at(nodes, i).name} took no entry: ${stderr}`)
    },
    async consoleShows(i, text, { from = 0, deadline_ms = LOG_POLL_DEADLINE_MS } = {}) {
      await until(`"${text}" on the console`, deadline_ms, () => consoleOf(i).slice(from).includes(text)).catch(
        (cause) => {
          throw new Error(`${cause.message}; it ends in:\n${consoleOf(i).slice(-2000)}`, { cause })
        },
      )
    },
    pauseNode: async (i) => void (await qmp(at(nodes, i).dir, 'stop')),
    resumeNode: async (i) => void (await qmp(at(nodes, i).dir, 'cont')),
    unplug: (i) => cable(i, 'down'),
    plug: (i) => cable(i, 'up'),
    async cutPower(i) {
      await qmp(at(nodes, i).dir, 'quit')
      await until(`${at(nodes, i).name} is off`, LOG_POLL_DEADLINE_MS, () => powerOf(i) === 'off')
    },
    stop() {
      stopped ??= Promise.all(bmcs.map((bmc) => bmc.kill())).then(() => keeper.end())
      return stopped
    },
  }
}

function makeNode(rackDir: string, i: number, options: RackOptions, sdrs: string): RackNode {
  const place = i + 1
  const dir = join(rackDir, `node${place}`)
  mkdirSync(dir, { mode: 0o700 })
  const disks = options.disks?.[i] ?? [{ size_gib: 6, kind: 'virtio' }]
  const serial = `LAB${String(place).padStart(5, '0')}`
  const node: RackNode = {
    ...{ name: `node${place}`, serial, uuid: randomUUID(), dir, console_log: join(dir, 'console.log') },
    mac: `52:54:00:77:00:${place.toString(16).padStart(2, '0')}`,
    bmc: bmcAddress(place, randomBytes(12).toString('base64url')), // 16 characters, all that IPMI 1.5 has room for
    disk_paths: disks.map((_, n) => join(dir, `disk${n}.raw`)),
    disk_serials: disks.map((_, n) => diskSerial(place, n)),
  }
  const { firmware = 'bios', ram_mib = 1024, smp = 1, nic = 'virtio', boot_rom = 'ipxe' } = options
  makeMachine(node, place, { firmware, ram_mib, smp, nic, boot_rom, disks })
  makeBmc(dir, place, node.bmc, node, sdrs)
  return node
}

const diskSerial = (place: number, n: number) => `LABDISK${String(place).padStart(5, '0')}${n > 0 ? `-${n + 1}` : ''}`

function networkCommands(taps: number): string {
  const { address, prefix, address6 } = PROVISIONING
  const places = Array.from({ length: taps }, (_, i) => i + 1)
  return [
    'link set lo up',
    'link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
    `addr add ${address}/${prefix} dev br0`,
    `addr add ${address6}/64 dev br0 nodad`, // a router for iPXE, which waits 15 s for one before it boots
    'link set br0 up',
    ...places.flatMap((n) => [`tuntap add dev tap${n} mode tap`, `link set tap${n} master br0 up`]),
  ].join('\n')
}

function at<T>(list: readonly T[], i: number): T {
  const item = list[i]
  if (item === undefined) throw new Error(`the rack has ${list.length} nodes, counted from 0: no ${i}`)
  return item
}
