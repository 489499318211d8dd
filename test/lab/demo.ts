/**
 * The main job, to watch: a virtual rack, the real service, and nodes that go from the loading dock to a running tenant
 * and, with --once, back again.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { labArtefacts } from './artefacts.ts'
import { openScreen } from './demo-screen.ts'
import { durationTable } from './durations.ts'
import { type Client, DEMO_PROFILE, deployment, openClient } from './life.ts'
import { type Rack, startRack } from './rack.ts'
import { type RackService, startRackService } from './service.ts'

const USAGE = `npm run demo -- [--nodes N] [--firmware bios|uefi] [--deploy iscsi|direct] [--port P] [--once]
  --nodes N     how many nodes, 1 to 8 (default 1)
  --firmware    bios (default) or uefi
  --deploy      iscsi (default: the service writes the image into the node's exported disk) or direct (the ramdisk pulls it)
  --port P      where the API listens on 127.0.0.1 (default 8080)
  --once        take the nodes back to available, stop everything, leave nothing behind`

const MAX_NODES = 8

type Settings = ReturnType<typeof readSettings>

const readSettings = () => {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '1' },
      firmware: { type: 'string', default: 'bios' },
      deploy: { type: 'string', default: 'iscsi' },
      port: { type: 'string', default: '8080' },
      once: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const nodes = Number(values.nodes)
  const port = Number(values.port)
  const { firmware, deploy, once, help } = values
  if (help) throw new Error(USAGE)
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_NODES)
    throw new Error(`--nodes: 1 to ${MAX_NODES}\n${USAGE}`)
  if (firmware !== 'bios' && firmware !== 'uefi') throw new Error(`--firmware: bios or uefi\n${USAGE}`)
  if (deploy !== 'iscsi' && deploy !== 'direct') throw new Error(`--deploy: iscsi or direct\n${USAGE}`)
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new Error(`--port: 0 to 65535\n${USAGE}`)
  return { nodes, firmware, deploy, port, once } as const
}

const main = async (settings: Settings): Promise<boolean> => {
  const screen = openScreen(process.stdout)
  const dir = mkdtempSync(join(tmpdir(), 'bloomery-demo-'))
  const ended = Promise.withResolvers<void>()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ended.resolve())
  let rack: Rack | undefined
  let service: RackService | undefined
  try {
    screen.say('building ramdisk and image (cached in .cache/)')
    const { ramdisk_dir, image_dir, image } = await labArtefacts()
    screen.say(`starting a rack of ${settings.nodes} (${settings.firmware}), each with an IPMI 2.0 BMC`)
    rack = await startRack({ dir: join(dir, 'rack'), nodes: settings.nodes, firmware: settings.firmware })
    service = await startRackService(rack, {
      data_dir: join(dir, 'data'),
      ramdisk_dir,
      image_dirs: [image_dir],
      port: settings.port,
      log_file: join(dir, 'service.log'),
      env: { BLOOMERY_POWER_POLL_S: '10' },
    })
    const client = openClient(service.url)
    screen.say(`Bloomery answers at ${service.url}`)
    const names = rack.nodes.map(({ name }) => name)
    const stopWatching = screen.watch(client, names)

    const lives = await Promise.race([
      Promise.allSettled(
        rack.nodes.map(async (node) => {
          await client.enroll(node)
          await client.command(node.name, 'verify', {}, 'manageable')
          await client.command(node.name, 'discover', {}, 'manageable')
          await client.command(node.name, 'provide', { profile: DEMO_PROFILE }, 'available')
          await client.command(node.name, 'deploy', deployment(image, settings.deploy), 'active')
          if (settings.once) await client.command(node.name, 'undeploy', {}, 'available')
        }),
      ),
      ended.promise.then(() => 'interrupted' as const),
    ])
    await stopWatching()
    if (lives === 'interrupted') return false
    for (const life of lives) if (life.status === 'rejected') screen.say(`FAILED: ${life.reason}`)
    screen.say(await durationTable(client, names))
    const isWhole = await areWhere(client, names, settings.once ? 'available' : 'active')
    if (!settings.once && isWhole) {
      screen.say(invitation(service.url, names[0] ?? ''))
      await ended.promise
    }
    return isWhole
  } finally {
    await service?.stop().catch((error: unknown) => screen.say(String(error)))
    const left = (await rack?.stop()) ?? []
    for (const command of left) screen.say(`was still running, and has been ended: ${command}`)
    rmSync(dir, { recursive: true, force: true })
    screen.say('everything is stopped; nothing is left behind')
  }
}

const areWhere = async (client: Client, names: readonly string[], state: string): Promise<boolean> => {
  const nodes = await Promise.all(names.map((name) => client.must('GET', `/v1/nodes/${name}`)))
  return nodes.every((node) => node['state'] === state)
}

const invitation = (
  url: string,
  name: string,
) => `The nodes are active, and stay so until Ctrl-C. Try, from another shell:
  curl -s ${url}/v1/nodes/${name}/history
  curl -s ${url}/v1/nodes/${name}/burn-in
  curl -s -X POST ${url}/v1/nodes/${name}/undeploy`

try {
  process.exitCode = (await main(readSettings())) ? 0 : 1
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
