/** A virtual machine that boots the ramdisk directly (no PXE, no BMC), for tests of the agent alone. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export type AgentVm = ReturnType<typeof startAgentVm>

export type AgentVmOptions = {
  readonly kernel: string
  readonly initrd: string
  readonly service_port: number
  readonly token: string
  readonly serial: string
  readonly disks: readonly { readonly path: string; readonly device: string; readonly serial: string }[]
  /** Where the machine's control socket goes. */
  readonly qmp: string
  /** A port of this machine that reaches the guest's iSCSI port. */
  readonly iscsi_port?: number
}

const UUID = '5b100e42-0000-4000-8000-000000000001'
const MAC = '52:54:00:b1:00:01'
const RAM_MIB = 1024

export function startAgentVm(options: AgentVmOptions) {
  const forward = options.iscsi_port ? `,hostfwd=tcp:127.0.0.1:${options.iscsi_port}-:3260` : ''
  const disks = options.disks.flatMap(({ path, device, serial }, i) => [
    ...['-drive', `if=none,id=d${i},file=${path},format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap`],
    ...['-device', `${device},drive=d${i},serial=${serial}`],
  ])
  // setpriv: the machine dies with the process that started it, however that ends.
  const qemu = spawn('setpriv', [
    ...['--pdeathsig', 'KILL', 'qemu-system-x86_64', '-machine', 'q35,accel=tcg,graphics=off', '-cpu', 'qemu64'],
    ...['-smp', '2', '-m', `${RAM_MIB}`, '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-smbios', `type=1,manufacturer=Test "Co",product=One,serial=${options.serial},uuid=${UUID}`],
    ...['-netdev', `user,id=n0,restrict=off${forward}`, '-device', `virtio-net-pci,netdev=n0,mac=${MAC},romfile=`],
    ...['-qmp', `unix:${options.qmp},server=on,wait=off`, '-device', 'virtio-rng-pci', ...disks],
    ...['-kernel', options.kernel, '-initrd', options.initrd, '-append', commandLine(options)],
  ])
  const exited = once(qemu, 'exit')
  let console = ''
  const collect = (chunk: Buffer) => {
    console = (console + chunk.toString('latin1')).slice(-CONSOLE_LIMIT)
  }
  qemu.stdout.on('data', collect)
  qemu.stderr.on('data', collect)

  return {
    mac: MAC,
    uuid: UUID,
    console: () => console,
    exited,
    /** Waits for a line of the console. */
    async prints(text: string, signal: AbortSignal): Promise<void> {
      while (!console.includes(text)) await once(qemu.stdout, 'data', { signal })
    },
    /** Presses the power button for a moment (ACPI). */
    pressPowerButton: () => tell(options.qmp, 'system_powerdown'),
    async stop(): Promise<void> {
      if (qemu.exitCode !== null || qemu.signalCode !== null) return
      qemu.kill('SIGKILL')
      await exited
    },
  }
}

const CONSOLE_LIMIT = 1_000_000

function commandLine({ service_port, token }: AgentVmOptions): string {
  const url = `http://10.0.2.2:${service_port}` // QEMU's name for 127.0.0.1 of the machine it runs on
  return `console=ttyS0 panic=-1 bloomery.url=${url} bloomery.token=${token} BOOTIF=01-${MAC.replaceAll(':', '-')}`
}

async function tell(path: string, command: string): Promise<void> {
  const socket: Socket = connect(path)
  await once(socket, 'data') // the greeting
  for (const execute of ['qmp_capabilities', command]) {
    socket.write(`${JSON.stringify({ execute })}\n`)
    await once(socket, 'data') // its answer: a connection that ends earlier takes the command with it
  }
  socket.destroy()
}
