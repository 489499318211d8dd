/** A provisioning network of its own: two network namespaces with a cable between them. Needs root. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'

export const LINK = { address: '10.99.0.1', prefix: 24, address6: 'fd99::1', interface: 'prov0', client: 'node0' }

export function startNetwork(t: TestContext) {
  const id = randomBytes(4).toString('hex')
  const names = { service: `boot-test-${id}-s`, client: `boot-test-${id}-c` }
  for (const name of Object.values(names)) {
    ip('netns', 'add', name)
    t.after(() => spawnSync('ip', ['netns', 'delete', name]))
  }
  ip(
    '-n',
    names.service,
    'link',
    'add',
    LINK.interface,
    'type',
    'veth',
    'peer',
    'name',
    LINK.client,
    'netns',
    names.client,
  )
  ip('-n', names.service, 'address', 'add', `${LINK.address}/${LINK.prefix}`, 'dev', LINK.interface)
  ip('-n', names.service, 'address', 'add', `${LINK.address6}/64`, 'dev', LINK.interface, 'nodad')
  ip('-n', names.service, 'link', 'set', LINK.interface, 'up')
  ip('-n', names.client, 'link', 'set', LINK.client, 'up')
  return {
    inService: (...argv: string[]) => ['ip', 'netns', 'exec', names.service, ...argv] as [string, ...string[]],
    inClient: (...argv: string[]) => ['ip', 'netns', 'exec', names.client, ...argv] as [string, ...string[]],
    setClientMac(mac: string) {
      ip('-n', names.client, 'address', 'flush', 'dev', LINK.client)
      ip('-n', names.client, 'link', 'set', LINK.client, 'address', mac)
    },
    addClientAddress: (address: string) =>
      ip('-n', names.client, 'address', 'add', `${address}/${LINK.prefix}`, 'dev', LINK.client),
  }
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8', timeout: 5_000 })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`)
}
