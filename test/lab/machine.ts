/** The machine behind a virtual node: its disks, QEMU's arguments for it, and QEMU's control socket. */

import { closeSync, copyFileSync, ftruncateSync, openSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const QMP_DEADLINE_MS = 5_000
const FIRMWARE_DIR = '/usr/share/OVMF'
const GIB = 1024 ** 3
const SOL_PORTS = 20_000
const IPMI_PORTS = 21_000

export type Firmware = 'bios' | 'uefi'
export type Disk = { readonly size_gib: number; readonly kind: 'virtio' | 'nvme' | 'ahci' }
export type MachineOptions = {
  readonly firmware: Firmware
  readonly ram_mib: number
  readonly smp: number
  readonly nic: 'virtio' | 'e1000'
  /**
   * `ipxe`: the NIC brings QEMU's own iPXE. `firmware`: it brings none, and UEFI boots by its own PXE. (SeaBIOS has no PXE of its own,
   * so that a BIOS node keeps the NIC's iPXE; chain undionly.kpxe from a script, and tell it by `${net0/chip}`.)
   */
  readonly boot_rom: 'ipxe' | 'firmware'
  readonly disks: readonly Disk[]
}
export type Machine = {
  readonly dir: string
  readonly mac: string
  readonly serial: string
  readonly uuid: string
  readonly disk_paths: readonly string[]
  /** At most 20 characters, all that virtio has room for. */
  readonly disk_serials: readonly string[]
  readonly console_log: string
}

/** The ports, inside the rack, where QEMU offers its serial line and where the BMC awaits QEMU's in-band IPMI. */
export const portsOf = (place: number) => ({ sol: SOL_PORTS + place, ipmi: IPMI_PORTS + place })

/** Makes the disks and the file `qemu.args`, from which the BMC starts the machine: one argument a line. */
export function makeMachine(machine: Machine, place: number, options: MachineOptions): void {
  for (const [i, disk] of options.disks.entries()) {
    if (!(disk.size_gib > 0)) throw new Error(`no disk has ${disk.size_gib} GiB`)
    const file = openSync(machine.disk_paths[i] ?? '', 'wx', 0o600)
    ftruncateSync(file, disk.size_gib * GIB)
    closeSync(file)
  }
  if (options.firmware === 'uefi') copyFileSync(join(FIRMWARE_DIR, 'OVMF_VARS_4M.fd'), join(machine.dir, 'vars.fd'))
  writeFileSync(join(machine.dir, 'qemu.args'), `${qemuArguments(machine, place, options).join('\n')}\n`)
}

/** `@NIC_PLACE@` stands where chassis.sh puts the NIC's place in the boot order. */
function qemuArguments({ dir, ...machine }: Machine, place: number, options: MachineOptions): readonly string[] {
  const rom = options.boot_rom === 'firmware' && options.firmware === 'uefi' ? ',romfile=' : ''
  const nic = options.nic === 'virtio' ? 'virtio-net-pci' : 'e1000'
  const { sol, ipmi } = portsOf(place)
  const flash = [
    `if=pflash,unit=0,format=raw,readonly=on,file=${FIRMWARE_DIR}/OVMF_CODE_4M.fd`,
    `if=pflash,unit=1,format=raw,file=${dir}/vars.fd`,
  ]
  return [
    ...['-name', `node${place}`, '-machine', 'q35,graphics=off', '-accel', 'tcg,thread=multi', '-cpu', 'qemu64'],
    ...['-smp', String(options.smp), '-m', String(options.ram_mib), '-nodefaults', '-display', 'none', '-vga', 'none'],
    ...['-smbios', `type=1,manufacturer=Bloomery,product=Rack,serial=${machine.serial},uuid=${machine.uuid}`],
    ...(options.firmware === 'uefi' ? flash.flatMap((drive) => ['-drive', drive]) : []),
    ...['-netdev', `tap,id=net0,ifname=tap${place},script=no,downscript=no`],
    ...['-device', `${nic},id=nic0,netdev=net0,mac=${machine.mac},bootindex=@NIC_PLACE@${rom}`],
    ...options.disks.flatMap((disk, i) =>
      diskArguments(disk, i, machine.disk_paths[i] ?? '', machine.disk_serials[i] ?? ''),
    ),
    ...['-chardev', `socket,id=ipmi0,host=127.0.0.1,port=${ipmi},reconnect=10`],
    ...['-device', 'ipmi-bmc-extern,id=bmc0,chardev=ipmi0', '-device', 'isa-ipmi-kcs,bmc=bmc0'],
    '-chardev',
    `socket,id=serial0,host=127.0.0.1,port=${sol},server=on,wait=off,logfile=${machine.console_log},logappend=on`,
    ...['-serial', 'chardev:serial0', '-device', 'virtio-rng-pci'],
    ...['-qmp', `unix:${dir}/monitor.sock,server=on,wait=off`], // the BMC's
    ...['-qmp', `unix:${dir}/faults.sock,server=on,wait=off`], // the test's, since a monitor serves one client at a time
    ...['-pidfile', `${dir}/qemu.pid`, '-daemonize'],
  ]
}

function diskArguments(disk: Disk, i: number, path: string, serial: string): readonly string[] {
  const device = { virtio: 'virtio-blk-pci', nvme: 'nvme', ahci: `ide-hd,bus=ide.${i}` }[disk.kind]
  return [
    '-drive',
    // Zeroes written become holes: a whole-disk overwrite must not fill the disk of the machine that runs the test.
    `if=none,id=drive${i},file=${path},format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap`,
    '-device',
    `${device},id=disk${i},drive=drive${i},serial=${serial},bootindex=${i + 1}`,
  ]
}

/** One QMP command to a running machine. @returns its answer @throws Error when it is off, refuses, or is silent */
export function qmp(dir: string, execute: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(join(dir, 'faults.sock')).setTimeout(QMP_DEADLINE_MS)
    const fail = (cause: unknown) => reject(new Error(`QMP ${execute} in ${dir} failed`, { cause }))
    socket.on('error', fail).on('timeout', () => socket.destroy(new Error('no answer')))
    socket.on('close', () => fail('the machine hung up'))
    createInterface(socket)
      .on('error', () => {})
      .on('line', (line) => {
        const answer = JSON.parse(line) as { id?: string; return?: unknown; error?: unknown }
        if (answer.id !== 'asked') return
        if (answer.error) fail(answer.error)
        resolve(answer.return)
        socket.destroy()
      })
    for (const command of [{ execute: 'qmp_capabilities' }, { execute, arguments: args, id: 'asked' }])
      socket.write(`${JSON.stringify(command)}\n`)
  })
}
