/** Says to dnsmasq who may boot what: DHCP and TFTP for the provisioning network, as text for its configuration. */
import { isIPv4, isIPv6 } from 'node:net'
import { FIRST_SCRIPT_PATH } from './ipxe.ts'

export type DnsmasqConfig = {
  readonly interface: string
  /** Our own address on that interface, IPv4, and the length of its prefix. */
  readonly address: string
  readonly prefix: number
  /** Addresses for machines that nobody has enrolled yet. Known nodes have their own, inside or outside of it. */
  readonly range: { readonly first: string; readonly last: string }
  /** Where iPXE fetches its scripts: http://10.77.0.1:8081 */
  readonly http_base: string
  readonly tftp_dir: string
  readonly hosts_file: string
  readonly lease_file: string
  /** Our IPv6 address there, /64. Without one iPXE waits 15 s in every boot for a router advertisement that never comes. */
  readonly address6?: string
  /** Default `answer`: an unknown machine is given an address, so that its script can send it on to its own disk. */
  readonly unknown?: 'answer' | 'ignore'
  /** Default: no router, the provisioning network leads nowhere. */
  readonly router?: string
  readonly dns?: string
}

export type DhcpHost = { readonly mac: string; readonly address: string; readonly name: string }

/** A lease so short that a swapped NIC is forgotten within the hour. */
const LEASE = '1h'
const MAX_LEASES = 4096
const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/
const HOST_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i
const PLAIN_PATH = /^\/[A-Za-z0-9._/@+-]+$/
const INTERFACE = /^[A-Za-z0-9._-]{1,15}$/

/** @throws {TypeError} on a value that would not mean to dnsmasq what it says */
export function dnsmasqConfig(config: DnsmasqConfig): string {
  const { interface: nic, address, prefix, range, tftp_dir, hosts_file, lease_file, address6, router, dns } = config
  check(INTERFACE.test(nic), `interface name ${nic}`)
  for (const ip of [address, range.first, range.last, router, dns])
    check(ip === undefined || isIPv4(ip), `IPv4 address ${ip}`)
  check(Number.isInteger(prefix) && prefix >= 8 && prefix <= 30, `prefix length ${prefix}`)
  check(address6 === undefined || isIPv6(address6), `IPv6 address ${address6}`)
  for (const path of [tftp_dir, hosts_file, lease_file]) check(PLAIN_PATH.test(path), `path ${path}`)
  const http_base = new URL(config.http_base).href.replace(/\/$/, '')
  check(/^https?:\/\/[A-Za-z0-9.:[\]/_-]+$/.test(http_base), `URL ${http_base}`)
  return `${[
    'port=0', // no DNS: this network has one name server at most, and it is not we
    `interface=${nic}`,
    'bind-interfaces',
    // A change of user would clear the parent-death signal, and a killed service would leave its dnsmasq behind. It is
    // started with nearly no capabilities instead (see dnsmasq.ts).
    'user=root',
    'group=root',
    'no-resolv',
    'no-hosts',
    'pid-file=',
    'log-dhcp',
    `dhcp-leasefile=${lease_file}`,
    `dhcp-lease-max=${MAX_LEASES}`,
    `dhcp-range=${range.first},${range.last},${netmask(prefix)},${LEASE}`,
    `dhcp-hostsfile=${hosts_file}`,
    ...(config.unknown === 'ignore' ? ['dhcp-ignore=tag:!known'] : []),
    'dhcp-authoritative',
    'no-ping', // three seconds per boot; known nodes have fixed addresses
    // An option without a value is not sent; the default would be to call ourselves a router.
    `dhcp-option=option:router${router === undefined ? '' : `,${router}`}`,
    ...(dns === undefined ? [] : [`dhcp-option=option:dns-server,${dns}`]),
    // Advertise the prefix, not a way out: router lifetime 0.
    ...(address6 === undefined
      ? []
      : ['enable-ra', 'quiet-ra', `ra-param=${nic},10,0`, `dhcp-range=::,constructor:${nic},ra-only,64`]),
    'enable-tftp',
    `tftp-root=${tftp_dir}`,
    'dhcp-userclass=set:ipxe,iPXE',
    // RFC 4578 §2.1, client system architecture: 0 is a BIOS, 7 and 9 are 64-bit UEFI. Others get an address, no file.
    'dhcp-match=set:bios,option:client-arch,0',
    'dhcp-match=set:efi64,option:client-arch,7',
    'dhcp-match=set:efi64,option:client-arch,9',
    `dhcp-boot=tag:ipxe,${http_base}${FIRST_SCRIPT_PATH}`,
    'dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe',
    'dhcp-boot=tag:!ipxe,tag:efi64,snponly.efi',
  ].join('\n')}\n`
}

/**
 * One line per known node: its own address, always the same. With dynamic ones dnsmasq can offer one address to two
 * nodes that boot together; the loser is refused, and iPXE does not recover.
 * @throws {TypeError} on a bad value, or on a MAC or an address given twice
 */
export function dnsmasqHosts(hosts: readonly DhcpHost[]): string {
  const seen = new Set<string>()
  const lines = hosts.map(({ mac, address, name }) => {
    const lower = mac.toLowerCase()
    check(MAC.test(lower), `MAC address ${mac}`)
    check(isIPv4(address), `IPv4 address ${address}`)
    check(HOST_NAME.test(name), `host name ${name}`)
    for (const key of [lower, address]) {
      check(!seen.has(key), `${key}, it is given twice`)
      seen.add(key)
    }
    return `${lower},${address},${name}\n`
  })
  return lines.sort().join('')
}

function netmask(prefix: number): string {
  const bits = (0xffffffff << (32 - prefix)) >>> 0
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join('.')
}

function check(fine: boolean, what: string): void {
  if (!fine) throw new TypeError(`not usable for dnsmasq: ${what}`)
}
