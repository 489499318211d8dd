/** Speaks to the provisioning listener from inside the rack's network: as a ramdisk would, or as an impostor. */
import assert from 'node:assert/strict'
import type { Rack, RackNode } from '../lab/rack.ts'
import { run } from '../lab/run.ts'

const PORT = 8081

export type Said = { readonly status: number; readonly text: string }

export const openAgent = (rack: Rack) => {
  /** All that curl is to know comes by its standard input: tokens are no business of the process list. */
  const call = async (method: string, path: string, bearer = '', body?: object): Promise<Said> => {
    const set = (name: string, value: string) =>
      `${name} = "${value.replaceAll(/["\\]/g, '\\$&').replaceAll('\n', '\\n')}"`
    const config = [
      set('url', `http://${rack.provisioning.address}:${PORT}${path}`),
      set('request', method),
      set('write-out', '\n%{http_code}'),
      ...(bearer ? [set('header', `Authorization: Bearer ${bearer}`)] : []),
      ...(body ? [set('data-raw', JSON.stringify(body)), set('header', 'Content-Type: application/json')] : []),
    ]
    const out = await run(rack.exec(['curl', '-s', '--max-time', '20', '-K', '-']), { input: config.join('\n') })
    const end = out.lastIndexOf('\n')
    return { status: Number(out.slice(end + 1)), text: out.slice(0, end).trim() }
  }
  const bootScript = async (mac: string) => (await call('GET', `/boot.ipxe?mac=${mac}&serial=S1&firmware=pcbios`)).text
  const hello = (token: string, inventory: object) => call('POST', '/agent/hello', token, inventory)
  return {
    bootScript,
    hello,
    /** The one-time token of the ramdisk that the node is to boot now. */
    async token(node: RackNode): Promise<string> {
      const script = await bootScript(node.mac)
      const [, token = ''] = /bloomery\.token=(\S+)/.exec(script) ?? []
      assert.notEqual(token, '', script)
      return token
    },
    async session(token: string, inventory: object): Promise<string> {
      const { status, text } = await hello(token, inventory)
      assert.equal(status, 200, text)
      return text.replace('session=', '')
    },
    order: (session: string) => call('GET', '/agent/order', session),
    result: (session: string, order: string, body: object = {}, rc = 0) =>
      call('POST', `/agent/result?order=${order}&rc=${rc}`, session, body),
  }
}

/** What a ramdisk would say of a node of the rack. */
export const inventoryOf = (node: RackNode, ...more_macs: readonly string[]) => ({
  agent: '1',
  serial: node.serial,
  uuid: node.uuid,
  firmware: 'bios',
  arch: 'x86_64',
  cpus: 1,
  cores: 1,
  cpu_model: 'said by a test',
  memory_mib: 256,
  nics: [node.mac, ...more_macs].map((mac, i) => ({ mac, name: `eth${i}`, driver: 'virtio_net', carrier: true })),
  disks: [
    { name: 'vda', bytes: 6 * 2 ** 30, rotational: false, serial: node.disk_serials[0], model: '', bus: 'virtio' },
  ],
  boot_nic: node.mac,
  tools: [],
})
