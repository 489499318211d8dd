/** What we say to dnsmasq, and what we read from it. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { dnsmasqConfig, dnsmasqHosts } from '../../src/boot/dnsmasq-config.ts'
import { dnsmasqLog } from '../../src/boot/dnsmasq-log.ts'

const good = {
  interface: 'br0',
  address: '10.77.0.1',
  prefix: 22,
  range: { first: '10.77.0.100', last: '10.77.0.200' },
  http_base: 'http://10.77.0.1:8081/',
  tftp_dir: '/srv/tftp',
  hosts_file: '/srv/hosts',
  lease_file: '/srv/leases',
}
const mac = '52:54:00:77:00:01'

test('dnsmasq accepts what we write, with and without every option', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dnsmasq-text-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const all = { address6: 'fd77::1', router: '10.77.0.254', dns: '10.77.0.53', unknown: 'ignore' } as const
  for (const options of [good, { ...good, ...all }]) {
    const path = join(dir, 'conf')
    writeFileSync(path, dnsmasqConfig(options))
    const { status, stderr } = spawnSync('dnsmasq', ['--test', '-C', path], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  assert.match(dnsmasqConfig(good), /dhcp-range=10\.77\.0\.100,10\.77\.0\.200,255\.255\.252\.0,/)
  assert.match(dnsmasqConfig(good), /dhcp-boot=tag:ipxe,http:\/\/10\.77\.0\.1:8081\/first\.ipxe\n/)
  assert.doesNotMatch(dnsmasqConfig(good), /dhcp-ignore|enable-ra/)
  assert.match(dnsmasqConfig({ ...good, ...all }), /dhcp-ignore=tag:!known/)
})

test('no value can bring an option of its own', () => {
  for (const bad of [
    { interface: 'br0\nenable-dbus' },
    { address: '10.77.0.1,x' },
    { http_base: 'http://10.77.0.1/,tag' },
    { tftp_dir: '/srv/a b' },
    { tftp_dir: 'relative' },
    { prefix: 33 },
    { router: 'x' },
  ])
    assert.throws(() => dnsmasqConfig({ ...good, ...bad }), TypeError, JSON.stringify(bad))
})

test('known machines are written in a fixed order, and no MAC or address twice', () => {
  const a = { mac: '52:54:00:77:00:0A', address: '10.77.0.11', name: 'node-1' }
  const b = { mac, address: '10.77.0.12', name: 'node-2' }
  assert.equal(dnsmasqHosts([a, b]), `${mac},10.77.0.12,node-2\n52:54:00:77:00:0a,10.77.0.11,node-1\n`)
  assert.equal(dnsmasqHosts([a, b]), dnsmasqHosts([b, a]))
  for (const bad of [{ mac: a.mac }, { address: a.address }, { name: 'a,b' }, { mac: 'x' }])
    assert.throws(() => dnsmasqHosts([a, { ...b, ...bad }]), TypeError)
})

test('lines of the log become what was seen, and other lines nothing', () => {
  const read = dnsmasqLog('/srv/tftp')
  const dhcp = (text: string) => read(`dnsmasq-dhcp[71]: 1461774654 ${text}`)
  assert.equal(dhcp('vendor class: PXEClient:Arch:00000:UNDI:002001'), null)
  const vendor_class = 'PXEClient:Arch:00000:UNDI:002001'
  assert.deepEqual(dhcp(`DHCPDISCOVER(br0) ${mac} `), { kind: 'dhcp-discover', mac, vendor_class })
  assert.deepEqual(dhcp(`DHCPDISCOVER(br0) ${mac} no address available`), {
    kind: 'dhcp-no-address',
    mac,
    vendor_class,
  })
  assert.deepEqual(dhcp(`DHCPOFFER(br0) 10.77.0.11 ${mac} `), {
    kind: 'dhcp-offer',
    mac,
    address: '10.77.0.11',
    vendor_class,
  })
  assert.deepEqual(dhcp(`DHCPNAK(br0) 10.77.0.11 ${mac} address in use`), {
    kind: 'dhcp-nak',
    mac,
    address: '10.77.0.11',
    vendor_class,
  })
  const sent = 'dnsmasq-tftp[71]: sent /srv/tftp/undionly.kpxe to 10.77.0.11'
  const file = { kind: 'tftp-sent', address: '10.77.0.11', file: 'undionly.kpxe' }
  assert.deepEqual(read(sent), { ...file, mac: null })
  assert.equal(read(`dnsmasq-dhcp: DHCPACK(br0) 10.77.0.11 ${mac} node-1`)?.kind, 'dhcp-ack')
  assert.deepEqual(read(sent), { ...file, mac })
  for (const line of ['', 'dnsmasq[71]: started, version 2.90', 'dnsmasq-dhcp[71]: 1461774654 tags: known, br0'])
    assert.equal(read(line), null)
})
