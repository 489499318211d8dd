/** Reads dnsmasq's log: who asked for an address, who got one, who fetched which file. */

export const SEEN_KINDS = [
  'dhcp-discover',
  'dhcp-offer',
  'dhcp-request',
  'dhcp-ack',
  'dhcp-nak',
  'dhcp-no-address',
  'tftp-sent',
  'tftp-not-found',
] as const

export type Seen = {
  readonly kind: (typeof SEEN_KINDS)[number]
  /** Lower case with colons; null for a TFTP client that never asked us for an address. */
  readonly mac: string | null
  readonly address?: string
  /** The path as the client asked for it, below the TFTP folder. */
  readonly file?: string
  /** DHCP option 60, `PXEClient:Arch:00007:...` */
  readonly vendor_class?: string
}

/** How many conversations, and how many addresses, are remembered at once; the oldest go first. */
const MAX_REMEMBERED = 4096

const DHCP = /^dnsmasq-dhcp(?:\[\d+\])?: (?:(\d+) )?(.*)$/
const TFTP = /^dnsmasq-tftp(?:\[\d+\])?: (.*)$/
const MESSAGE = /^DHCP(DISCOVER|OFFER|REQUEST|ACK|NAK)\([^)]+\) (?:([0-9.]+) )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\s?(.*)$/
const CLASS = /^vendor class: (.*)$/
const NO_ADDRESS = 'no address available'

/** A reader with a memory: the vendor class comes on a line of its own, and TFTP lines know addresses only. */
export function dnsmasqLog(tftp_dir: string): (line: string) => Seen | null {
  const classes = new Map<string, string>()
  const macs = new Map<string, string>()

  function dhcp(conversation: string, text: string): Seen | null {
    const vendor = CLASS.exec(text)
    if (vendor) remember(classes, conversation, vendor[1] ?? '')
    const message = MESSAGE.exec(text)
    if (!message) return null
    const [, type = '', address, mac = '', rest = ''] = message
    const kind = rest.includes(NO_ADDRESS) ? 'dhcp-no-address' : (`dhcp-${type.toLowerCase()}` as Seen['kind'])
    if (kind === 'dhcp-ack' && address) remember(macs, address, mac)
    const vendor_class = classes.get(conversation)
    return { kind, mac, ...(address ? { address } : {}), ...(vendor_class ? { vendor_class } : {}) }
  }

  function tftp(text: string): Seen | null {
    const match = /^(?:sent (.+) to|file (.+) not found for) ([0-9a-f.:]+)$/.exec(text)
    if (!match) return null
    const [, sent, missing, address = ''] = match
    const path = sent ?? missing ?? ''
    const file = path.startsWith(`${tftp_dir}/`) ? path.slice(tftp_dir.length + 1) : path
    return { kind: sent ? 'tftp-sent' : 'tftp-not-found', mac: macs.get(address) ?? null, address, file }
  }

  return (line) => {
    const [, conversation = '', message] = DHCP.exec(line) ?? []
    if (message !== undefined) return dhcp(conversation, message)
    const [, transfer] = TFTP.exec(line) ?? []
    return transfer === undefined ? null : tftp(transfer)
  }
}

function remember(memory: Map<string, string>, key: string, value: string): void {
  memory.delete(key)
  memory.set(key, value)
  const [oldest] = memory.keys()
  if (memory.size > MAX_REMEMBERED && oldest !== undefined) memory.delete(oldest)
}
