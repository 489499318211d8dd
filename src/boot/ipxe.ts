/** Writes the scripts that iPXE runs on a node: first stage, ramdisk, on to the local disk. Words of Debian's 2019 iPXE only. */

/** Named in the DHCP answer; the same for every node. */
export const FIRST_SCRIPT_PATH = '/first.ipxe'
/** Asked for by the first stage with who it is in the query. */
export const BOOT_SCRIPT_PATH = '/boot.ipxe'
/** The files of a ramdisk boot; each fetch has the node's MAC in its path, so that the service can see how far it got. */
export const BOOT_FILES = ['kernel', 'ramdisk', 'extra', 'burnin'] as const
export type BootFile = (typeof BOOT_FILES)[number]

export type RamdiskScript = {
  readonly base_url: string
  /** Of the NIC that booted. */
  readonly mac: string
  /** Proves the attempt, once; see tokens.ts. On the kernel's command line, so it is in the script and nowhere else. */
  readonly token: string
  /** `ramdisk` first; `extra` has less common drivers, `burnin` the tools of a burn-in. */
  readonly initrds: readonly Exclude<BootFile, 'kernel'>[]
  /** `ttyS0,115200n8`; several are given to the kernel in this order. */
  readonly consoles?: readonly string[]
  readonly kernel_args?: readonly string[]
}

/** The wait before iPXE asks again. It asks for ever: the next attempt switches the node off before it begins. */
const RETRY_S = 5
const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/
const TOKEN = /^[A-Za-z0-9_-]{16,128}$/
/** No space, no quote, no `$`, `&`, `|`, `#` or backslash: nothing in it can mean anything to iPXE. */
const WORD = /^[A-Za-z0-9][A-Za-z0-9_.,:=@/+-]{0,255}$/
const CONSOLE = /^tty[A-Za-z0-9]{1,8}(,[0-9]{1,7}[noe]?[5-8]?r?)?$/

export function firstStageScript({ base_url }: { readonly base_url: string }): string {
  // This iPXE leaves an & of a vendor's string as it is, so those come last: a reader takes the first of each name.
  const query = [
    `mac=${setting('bootmac')}`,
    `uuid=${setting('uuid')}`,
    `firmware=${setting('platform')}`,
    `chip=${setting('netX/chip:uristring')}`,
    `serial=${setting('serial:uristring')}`,
    `manufacturer=${setting('manufacturer:uristring')}`,
    `product=${setting('product:uristring')}`,
  ].join('&')
  // netX is the NIC that iPXE opened last, the one that this script came through.
  return script([
    `isset ${setting('netX/mac')} && set bootmac ${setting('netX/mac')} || set bootmac ${setting('net0/mac')}`,
    ':again',
    `chain --replace --autofree ${base(base_url)}${BOOT_SCRIPT_PATH}?${query} ||`,
    ...waitAndGoTo('again', 'no boot script from the provisioning service'),
  ])
}

/** @throws {TypeError} on a value that could say more to iPXE than it should */
export function ramdiskScript(options: RamdiskScript): string {
  const { mac, token, initrds, consoles = [], kernel_args = [] } = options
  const url = base(options.base_url)
  const folder = `${url}${bootFilePath(mac, 'kernel').replace(/kernel$/, '')}`
  check(TOKEN.test(token), 'the token')
  check(initrds[0] === 'ramdisk' && new Set(initrds).size === initrds.length, `initrds ${initrds}`)
  const command_line = [
    // The EFI stub of the kernel takes its initrds from iPXE by these names; a BIOS boot ignores them.
    ...initrds.map((name) => `initrd=${name}`),
    ...consoles.map((name) => `console=${word(name, CONSOLE)}`),
    ...kernel_args.map((arg) => word(arg, WORD)),
    `bloomery.url=${url}`,
    `bloomery.token=${token}`,
    `BOOTIF=01-${mac.toLowerCase().replaceAll(':', '-')}`,
  ]
  return script([
    'imgfree',
    `kernel --name kernel ${folder}kernel ${command_line.join(' ')} || goto failed`,
    ...initrds.map((name) => `initrd --name ${name} ${folder}${name} || goto failed`),
    'boot || goto failed',
    ':failed',
    // From the start, not from here: the token may be spent by then.
    ...waitAndGoTo('again', 'the ramdisk could not be loaded or started'),
    ':again',
    `chain --replace --autofree ${url}${FIRST_SCRIPT_PATH} || goto failed`,
  ])
}

/** Leaves the network boot: a BIOS is handed its first disk, UEFI goes on with its own boot order. */
export function localDiskScript({ reason }: { readonly reason: string }): string {
  return script([
    `echo ${plain(reason)}`,
    `iseq ${setting('platform')} efi && exit ||`,
    'sanboot --no-describe --drive 0x80 || exit',
  ])
}

export function unknownScript({ mac }: { readonly mac: string }): string {
  return localDiskScript({ reason: `${mac} belongs to no enrolled node: booting from its own disk` })
}

export function bootFilePath(mac: string, file: BootFile): string {
  const lower = mac.toLowerCase()
  check(MAC.test(lower), `MAC address ${mac}`)
  return `/boot/${lower.replaceAll(':', '-')}/${file}`
}

export function parseBootFilePath(path: string): { readonly mac: string; readonly file: BootFile } | null {
  const [, mac, name] = /^\/boot\/((?:[0-9a-f]{2}-){5}[0-9a-f]{2})\/([a-z]+)$/.exec(path) ?? []
  const file = BOOT_FILES.find((known) => known === name)
  return mac && file ? { mac: mac.replaceAll('-', ':'), file } : null
}

/** One of iPXE's own variables, which it fills in. */
function setting(name: string): string {
  return `\${${name}}`
}

function script(lines: readonly string[]): string {
  return `#!ipxe\n${lines.join('\n')}\n`
}

function waitAndGoTo(label: string, why: string): string[] {
  return [`echo ${plain(why)}: trying again in ${RETRY_S} s`, `sleep ${RETRY_S}`, `goto ${label}`]
}

function base(url: string): string {
  const { protocol, href, search, hash, username, password } = new URL(url)
  const bare = href.replace(/\/$/, '')
  check(/^https?:$/.test(protocol) && !search && !hash && !username && !password, `base URL ${url}`)
  check(/^[A-Za-z0-9.:[\]/_-]+$/.test(bare), `base URL ${url}`)
  return bare
}

function word(value: string, shape: RegExp): string {
  check(shape.test(value), `kernel argument ${value}`)
  return value
}

/** For echo: what iPXE could read as more than text becomes a space. */
function plain(text: string): string {
  return text
    .replace(/[^A-Za-z0-9 .,:_/-]/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .slice(0, 200)
}

function check(fine: boolean, what: string): void {
  if (!fine) throw new TypeError(`not usable in an iPXE script: ${what}`)
}
