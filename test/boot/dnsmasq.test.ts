/** DHCP and TFTP for nodes: a real dnsmasq, and a real client at the other end of a cable. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { on, once } from 'node:events'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { LINK, startNetwork } from './netns.ts'

const execute = promisify(execFile)
const DEADLINE_MS = 15_000
const skip = process.getuid?.() === 0 ? false : 'needs root for network namespaces'
type Line = Record<string, Record<string, unknown>>

async function startService(t: TestContext) {
  const network = startNetwork(t)
  const dir = await mkdtemp(join(tmpdir(), 'dnsmasq-test-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const given = JSON.stringify({ dir, network: { ...LINK, client: undefined } })
  const file = new URL('./dnsmasq-service.ts', import.meta.url).pathname
  const [command, ...args] = network.inService(process.execPath, '--import', 'tsx', file, given)
  const service = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => service.kill('SIGKILL'))
  const lines: Line[] = []
  const reader = createInterface({ input: service.stdout }).on('line', (line) => lines.push(JSON.parse(line)))
  /** The first line from now on, or one that came already, that fits. */
  async function line(fits: (line: Line) => unknown): Promise<Line> {
    for (let at = 0; ; at += 1) {
      for (; at < lines.length; at += 1) {
        const [found] = fits(lines[at] ?? {}) ? lines.splice(at, 1) : []
        if (found) return found
      }
      at -= 1
      for await (const _ of on(reader, 'line', { signal: AbortSignal.timeout(DEADLINE_MS) })) break
    }
  }
  const send = (command_line: object) => service.stdin.write(`${JSON.stringify(command_line)}\n`)
  const ready = await line((l) => l['ready'])
  return { network, service, line, send, dir, pid: Number(ready['ready']?.['pid']) }
}

/** What a firmware of this kind asks, by busybox's DHCP client; the variables that the server's answer set. */
async function askAddress(network: ReturnType<typeof startNetwork>, dir: string, mac: string, ...more: string[]) {
  network.setClientMac(mac)
  const script = join(dir, 'udhcpc.sh')
  await writeFile(script, '#!/bin/sh\n[ "$1" = bound ] && env\nexit 0\n', { mode: 0o755 })
  const [command, ...args] = network.inClient(
    'busybox',
    'udhcpc',
    '-i',
    LINK.client,
    '-f',
    '-n',
    '-q',
    '-t',
    '5',
    '-T',
    '1',
    '-s',
    script,
    ...more,
  )
  const { stdout } = await execute(command, args, { timeout: DEADLINE_MS })
  return Object.fromEntries(stdout.split('\n').map((text) => text.split(/=(.*)/s).slice(0, 2)))
}

async function isGone(pid: number): Promise<void> {
  const until = Date.now() + DEADLINE_MS
  while (
    await access(`/proc/${pid}`).then(
      () => true,
      () => false,
    )
  ) {
    assert.ok(Date.now() < until, `dnsmasq ${pid} is still there`)
    await delay(10)
  }
}

const BIOS = ['-V', 'PXEClient:Arch:00000:UNDI:002001', '-x', '0x5d:0000']
const UEFI = ['-V', 'PXEClient:Arch:00007:UNDI:003016', '-x', '0x5d:0007']
const IPXE = ['-x', '0x4d:69505845', '-x', '0x5d:0000']

test('nodes get their address and the boot file of their firmware, and every step is seen', { skip }, async (t) => {
  const { network, line, send, dir } = await startService(t)
  const mac = '02:00:00:00:00:11'

  const bios = await askAddress(network, dir, mac, ...BIOS)
  assert.deepEqual(
    [bios.ip, bios.boot_file, bios.hostname, bios.router],
    ['10.99.0.11', 'undionly.kpxe', 'node-1', undefined],
  )
  const first = await line((l) => l['seen'])
  assert.deepEqual(first, { seen: { kind: 'dhcp-discover', mac, vendor_class: 'PXEClient:Arch:00000:UNDI:002001' } })
  for (const kind of ['dhcp-offer', 'dhcp-ack'])
    assert.equal((await line((l) => l['seen']?.['kind'] === kind))['seen']?.['address'], '10.99.0.11')
  assert.equal((await askAddress(network, dir, mac, ...UEFI)).boot_file, 'snponly.efi')
  assert.equal((await askAddress(network, dir, mac, ...IPXE)).boot_file, 'http://10.99.0.1:8081/first.ipxe')

  network.addClientAddress('10.99.0.11')
  const got = join(dir, 'got')
  const fetchFile = (name: string) =>
    network.inClient('curl', '-sS', '-m', '10', `tftp://${LINK.address}/${name}`, '-o', got)
  const [command, ...args] = fetchFile('snponly.efi')
  await execute(command, args)
  assert.ok((await readFile(got)).equals(await readFile('/usr/lib/ipxe/snponly.efi')))
  assert.deepEqual((await line((l) => l['seen']?.['kind'] === 'tftp-sent'))['seen'], {
    kind: 'tftp-sent',
    mac,
    address: '10.99.0.11',
    file: 'snponly.efi',
  })
  await assert.rejects(execute(command, fetchFile('nothing').slice(1)))
  assert.equal((await line((l) => l['seen']?.['kind'] === 'tftp-not-found'))['seen']?.['file'], 'nothing')

  const stranger = await askAddress(network, dir, '02:00:00:00:00:22')
  assert.match(stranger.ip ?? '', /^10\.99\.0\.1\d\d$/)

  send({ hosts: [{ mac: '02:00:00:00:00:33', address: '10.99.0.33', name: 'node-3' }] })
  await line((l) => l['hosts'])
  assert.equal((await askAddress(network, dir, '02:00:00:00:00:33')).ip, '10.99.0.33')
})

test('a dnsmasq that dies is replaced and said so, and stops when it should', { skip }, async (t) => {
  const { network, line, send, dir, pid, service } = await startService(t)
  process.kill(pid, 'SIGKILL')
  await line((l) => String(l['error']).includes('no node can boot'))
  assert.equal((await askAddress(network, dir, '02:00:00:00:00:11')).ip, '10.99.0.11')
  send({ state: true })
  const { state } = await line((l) => l['state'])
  assert.equal(state?.['restarts'], 1)
  assert.notEqual(state?.['pid'], pid)
  send({ stop: true })
  const [code] = await once(service, 'exit')
  assert.equal(code, 0)
  await isGone(Number(state?.['pid']))
})

test('when the service is killed, its dnsmasq goes with it', { skip }, async (t) => {
  const { service, pid } = await startService(t)
  service.kill('SIGKILL')
  await isGone(pid)
})
