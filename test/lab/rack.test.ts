/** The virtual rack itself: what the other tests take for granted of it. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, describe, test } from 'node:test'
import { buildDemoImage } from './image.ts'
import { type Rack, type RackOptions, startRack, stopStaleRack, sweepRacks } from './rack.ts'
import { run, textOf, until } from './run.ts'

const CACHE = join(import.meta.dirname, '../../.cache')
const BOOT_DEADLINE_MS = 90_000
const BOOT = { timeout: 2 * BOOT_DEADLINE_MS }
const scratch = mkdtempSync(join(tmpdir(), 'rack-test-'))
const rackDir = (name: string) => join(scratch, name)
const started: Rack[] = []

async function rackFor(name: string, options: Partial<RackOptions> = {}): Promise<Rack> {
  const rack = await startRack({ dir: rackDir(name), nodes: 1, ...options })
  started.push(rack)
  return rack
}

after(async () => {
  await Promise.all(started.map((rack) => rack.stop()))
  rmSync(scratch, { recursive: true, force: true })
})

describe('the virtual rack', { concurrency: true }, () => {
  describe('a node of the rack', { concurrency: false }, () => {
    test('is off until its BMC is told to switch it on, and its machine ends when the BMC switches it off', async () => {
      const rack = await rackFor('power')
      assert.equal(await say(rack, 'chassis', 'power', 'status'), 'Chassis Power is off')
      await say(rack, 'chassis', 'bootdev', 'pxe')
      await say(rack, 'chassis', 'power', 'on')
      assert.equal(await say(rack, 'chassis', 'power', 'status'), 'Chassis Power is on')
      assert.equal(rack.powerOf(0), 'on')
      assert.equal(machinesIn(rack.dir), 1)
      await say(rack, 'chassis', 'power', 'on')
      await say(rack, 'chassis', 'power', 'off')
      assert.equal(await say(rack, 'chassis', 'power', 'status'), 'Chassis Power is off')
      assert.equal(machinesIn(rack.dir), 0)
      assert.deepEqual(
        rack.bmcLog(0).map(({ what, detail, outcome }) => [what, detail, outcome].join(' ')),
        ['boot-device pxe done', 'power-on pxe done', 'power-on  already', 'power-off  done'],
      )
    })

    test('has sensors and an event log that follow the temperature it is given', async () => {
      const rack = await rackFor('sensors')
      assert.match(await say(rack, 'sensor'), /CPU Temp +\| 45\.000 +\| degrees C/)
      assert.equal(await say(rack, 'mc', 'guid').then((text) => /GUID +: (\S+)/.exec(text)?.[1]), rack.nodes[0]?.uuid)
      await rack.addSelEntry(0)
      assert.match(await say(rack, 'sel', 'elist'), /CPU Temp \| Upper Critical going high/)
      rack.bmc(0).setTemperature(97)
      await until('the event', 5_000, async () =>
        (await say(rack, 'sel', 'elist')).includes('Upper Non-recoverable going high'),
      )
      assert.match(await say(rack, 'sensor'), /CPU Temp +\| 97\.000/)
    })

    test('refuses a wrong password, and is silent when its BMC is dead or hangs', async () => {
      const rack = await rackFor('faults', { nodes: 2 })
      const right = rack.nodes[0]?.bmc.password ?? ''
      const passwordFile = join(rack.nodes[0]?.dir ?? '', 'password')
      writeFileSync(passwordFile, 'not-this-one')
      assert.match((await rack.ipmitool(0, '-v', 'chassis', 'power', 'status')).stderr, /RAKP 2 HMAC is invalid/)
      writeFileSync(passwordFile, right)
      await rack.bmc(0).kill()
      rack.bmc(1).freeze()
      const silent = await Promise.all([0, 1].map((i) => rack.ipmitool(i, 'chassis', 'power', 'status')))
      assert.deepEqual(
        silent.map(({ code }) => code),
        [1, 1],
      )
      await rack.bmc(0).start()
      rack.bmc(1).thaw()
      await say(rack, 'chassis', 'power', 'status')
      await say({ rack, node: 1 }, 'chassis', 'power', 'status')
    })

    test('with a lying BMC stays off, and its machine outlives the BMC', async () => {
      const rack = await rackFor('lies')
      rack.bmc(0).lie()
      await say(rack, 'chassis', 'power', 'on')
      assert.equal(await say(rack, 'chassis', 'power', 'status'), 'Chassis Power is off')
      assert.equal(rack.bmcLog(0).at(-1)?.outcome, 'ignored')
      rack.bmc(0).tellTruth()
      await say(rack, 'chassis', 'power', 'on')
      await rack.bmc(0).kill()
      assert.equal(rack.powerOf(0), 'on')
      await rack.pauseNode(0)
      await rack.resumeNode(0)
      await rack.unplug(0)
      assert.match(await run(rack.exec(['ip', 'link', 'show', 'tap1'])), /state DOWN/)
      await rack.plug(0)
      await rack.cutPower(0)
      assert.equal(rack.powerOf(0), 'off')
    })
  })

  describe('the demo image', { concurrency: false }, () => {
    test(
      'boots from an NVMe disk, phones home as its config drive says, and follows the power button',
      BOOT,
      async () => {
        const disks = [
          { size_gib: 1, kind: 'nvme' },
          { size_gib: 1, kind: 'virtio' },
        ] as const
        const rack = await rackFor('home', { disks: [disks], ram_mib: 256 })
        const home = await phoneHomeListener(rack)
        await writeDisk(rack, 0, 0, (await buildDemoImage(CACHE)).raw.path)
        const metaData = { uuid: 'an-instance', hostname: 'tenant-1', meta: { phone_home_url: home.url } }
        await writeDisk(rack, 0, 1, await configDrive(metaData))
        await say(rack, 'chassis', 'bootdev', 'disk')
        await say(rack, 'chassis', 'power', 'on')
        const serial = rack.nodes[0]?.serial
        const report = { instance_id: 'an-instance', hostname: 'tenant-1', serial, ip: '10.77.0.11', boot: 'bios' }
        assert.deepEqual(await home.report, report)
        await rack.consoleShows(0, 'PHONED-HOME')
        await say(rack, 'chassis', 'power', 'soft')
        await until('the node is off', BOOT_DEADLINE_MS, () => rack.powerOf(0) === 'off')
        const strays = await rack.stop()
        assert.equal(strays.length, 2, strays.join('\n')) // the listener and dnsmasq
      },
    )

    test('boots from a GPT disk after one PXE boot has used up the override', BOOT, async () => {
      const rack = await rackFor('override', { ram_mib: 256 })
      const viaNic = `net0: ${rack.nodes[0]?.mac}`
      await writeDisk(rack, 0, 0, (await buildDemoImage(CACHE, { table: 'gpt' })).raw.path)
      await say(rack, 'chassis', 'bootdev', 'pxe')
      await say(rack, 'chassis', 'power', 'on')
      await rack.consoleShows(0, viaNic)
      await say(rack, 'chassis', 'power', 'reset')
      await rack.consoleShows(0, 'IMAGE-BOOTED-FROM-DISK firmware=bios')
      const beforeReset = rack.consoleOf(0).length
      await say(rack, 'chassis', 'bootdev', 'pxe')
      await say(rack, 'chassis', 'power', 'reset')
      await rack.consoleShows(0, viaNic, { from: beforeReset })
      const beforeForgetting = rack.consoleOf(0).length
      rack.bmc(0).forgetBoot()
      await say(rack, 'chassis', 'bootdev', 'pxe')
      await say(rack, 'chassis', 'power', 'reset')
      await rack.consoleShows(0, 'Booting from Hard Disk', { from: beforeForgetting })
      await rack.stop()
    })

    test('boots on UEFI, from an MBR and from a GPT disk', BOOT, async () => {
      const rack = await rackFor('uefi', { nodes: 2, firmware: 'uefi', ram_mib: 256 })
      for (const [i, table] of (['mbr', 'gpt'] as const).entries()) {
        await writeDisk(rack, i, 0, (await buildDemoImage(CACHE, { table })).raw.path)
        await say({ rack, node: i }, 'chassis', 'power', 'on')
      }
      await Promise.all([0, 1].map((i) => rack.consoleShows(i, 'IMAGE-BOOTED-FROM-DISK firmware=uefi')))
      await rack.stop()
    })
  })

  describe('nothing of a rack is left', { concurrency: false }, () => {
    test('when it is stopped, twice', async () => {
      const rack = await rackFor('stopped')
      await say(rack, 'chassis', 'power', 'on')
      assert.deepEqual(await rack.stop(), [])
      await rack.stop()
      assertGone(rack)
    })

    test('when it fails half-way', async () => {
      const impossible = [[{ size_gib: 1, kind: 'virtio' }], [{ size_gib: -1, kind: 'virtio' }]] as const
      await assert.rejects(rackFor('half', { nodes: 2, disks: impossible }))
      assert.equal(existsSync(rackDir('half')), false)
      assert.equal(machinesIn(rackDir('half')), 0)
      assert.deepEqual(registered('half'), [])
    })

    test('when its owner is killed: the processes at once, the rest by the next rack', {
      timeout: BOOT_DEADLINE_MS,
    }, async () => {
      const owner = spawn(
        process.execPath,
        ['--import', 'tsx', join(import.meta.dirname, 'owner.ts'), rackDir('orphan')],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      )
      const [namespace] = (await once(createInterface(owner.stdout), 'line')) as [string]
      await assert.rejects(stopStaleRack(rackDir('orphan')), /belongs to process/)
      assert.equal(machinesIn(rackDir('orphan')), 1)
      owner.kill('SIGKILL')
      await until('its processes end', 10_000, () => processesOf(rackDir('orphan')).length === 0)
      await sweepRacks()
      assertGone({ dir: rackDir('orphan'), namespace })
    })
  })
})

async function say(where: Rack | { rack: Rack; node: number }, ...args: readonly string[]): Promise<string> {
  const { rack, node } = 'rack' in where ? where : { rack: where, node: 0 }
  const { code, stdout, stderr } = await rack.ipmitool(node, ...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout.trim()
}

const writeDisk = (rack: Rack, node: number, disk: number, image: string) =>
  run(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, rack.nodes[node]?.disk_paths[disk] ?? ''])

async function configDrive(metaData: object): Promise<string> {
  const tree = join(scratch, 'config-drive')
  mkdirSync(join(tree, 'openstack/latest'), { recursive: true })
  writeFileSync(join(tree, 'openstack/latest/meta_data.json'), JSON.stringify(metaData, null, 2))
  await run(['xorriso', '-as', 'mkisofs', '-quiet', '-R', '-J', '-V', 'config-2', '-o', `${tree}.iso`, tree])
  return `${tree}.iso`
}

/** Inside the rack: DHCP for the node, and a server that prints the first JSON body it gets. */
async function phoneHomeListener(rack: Rack): Promise<{ url: string; report: Promise<unknown> }> {
  const { address, interface: bridge } = rack.provisioning
  const host = `--dhcp-host=${rack.nodes[0]?.mac},10.77.0.11`
  const dhcp = [
    '-p0',
    `-i${bridge}`,
    '-z',
    '-F10.77.0.100,10.77.0.110',
    host,
    '-l',
    join(rack.dir, 'leases'),
    '-C/dev/null',
    '-x',
    '',
  ]
  spawnIn(rack, ['dnsmasq', '--keep-in-foreground', '--log-facility=-', ...dhcp])
  const listener = spawnIn(rack, [process.execPath, '-e', LISTENER, address])
  const lines = createInterface(listener.stdout)[Symbol.asyncIterator]()
  const url = String((await lines.next()).value)
  return { url, report: lines.next().then(({ value }) => JSON.parse(String(value))) }
}

function spawnIn(rack: Rack, argv: readonly string[]) {
  const [command = '', ...rest] = rack.exec(argv)
  return spawn(command, rest, { stdio: ['ignore', 'pipe', 'ignore'] })
}

const LISTENER = `
  const server = require('node:http').createServer(async (request, response) => {
    const body = []
    for await (const bytes of request) body.push(bytes)
    console.log(request.headers['content-type'] === 'application/json' ? String(Buffer.concat(body)) : '"not JSON"')
    response.end()
  })
  server.listen(0, process.argv[1], () => console.log('http://' + process.argv[1] + ':' + server.address().port + '/home'))`

/** The racks in that directory that are in the book of racks to be swept. */
const registered = (name: string) =>
  readdirSync('/run/bloomery-lab').filter((file) => textOf(`/run/bloomery-lab/${file}`).includes(rackDir(name)))

function assertGone({ dir, namespace }: { dir: string; namespace: string }): void {
  assert.deepEqual(processesOf(dir), [])
  assert.equal(existsSync(`/run/netns/${namespace}`), false)
  assert.equal(existsSync(dir), false)
}

const machinesIn = (dir: string) => processesOf(dir).filter((line) => line.startsWith('qemu-system')).length

/** The command lines, of all processes, that name a rack's directory; this one and its like aside. */
const processesOf = (dir: string) =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' '))
    .filter((line) => line.includes(`${dir}/`))
