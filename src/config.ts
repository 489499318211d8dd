/** Settings, from the environment: each with its default, checked once at the start. */
import { existsSync } from 'node:fs'
import { z } from 'zod'
import { DEFAULT_DEADLINES_S } from './effects/deadlines.ts'
import { DEFAULT_LANES } from './effects/lanes.ts'

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1|localhost)$/
const address = z.union([z.ipv4(), z.ipv6(), z.literal('localhost')])
const GIB = 2 ** 30

/** `deploy=16,clean=8`: numbers by name, over the defaults. */
const numbers = <Name extends string>(defaults: Readonly<Record<Name, number>>) =>
  z
    .string()
    .transform((text, context): Readonly<Record<Name, number>> => {
      const set: Record<Name, number> = { ...defaults }
      for (const part of text.split(',').filter(Boolean)) {
        const [, name, count] = /^([^=]+)=([1-9]\d{0,8})$/.exec(part) ?? []
        const known = (Object.keys(defaults) as Name[]).find((each) => each === name)
        if (!known) {
          context.addIssue(`each part is name=number, and a name is one of ${Object.keys(defaults).join(', ')}`)
          return z.NEVER
        }
        set[known] = Number(count)
      }
      return set
    })
    .default(() => defaults as never)

const environment = z
  .object({
    /** Where the operators' API listens; `fd:3` takes over a listening socket that the parent opened. */
    BLOOMERY_API: z.string().default('127.0.0.1:8080'),
    /** Operators need no password yet: only with this is another address than loopback accepted. */
    BLOOMERY_API_UNPROTECTED: z.enum(['yes', 'no']).default('no'),
    /** Everything that must survive: the log, the vault, the blobs. */
    BLOOMERY_DATA: z.string().default('./data'),
    BLOOMERY_STORE: z
      .string()
      .regex(/^sqlite:.+/, 'sqlite:PATH')
      .optional(),
    /** Base64 or hex of 32 bytes; without it, the file master.key in BLOOMERY_DATA, made when missing. */
    BLOOMERY_MASTER_KEY: z.string().optional(),
    /** The interface to the provisioning network; without it nothing boots from the network. */
    BLOOMERY_PROVISIONING_INTERFACE: z.string().optional(),
    BLOOMERY_PROVISIONING_ADDRESS: address.default('10.77.0.1'),
    BLOOMERY_PROVISIONING_ADDRESS6: z.string().optional(),
    BLOOMERY_PROVISIONING_PREFIX: z.coerce.number().int().min(8).max(30).default(24),
    BLOOMERY_PROVISIONING_PORT: z.coerce.number().int().min(1).max(65_535).default(8081),
    /** Addresses of known nodes, one each. */
    BLOOMERY_NODE_RANGE: z
      .string()
      .regex(/^[\d.]+-[\d.]+$/, 'FIRST-LAST')
      .default('10.77.0.10-10.77.0.199'),
    /** Addresses of machines that nobody enrolled. */
    BLOOMERY_UNKNOWN_RANGE: z
      .string()
      .regex(/^[\d.]+-[\d.]+$/, 'FIRST-LAST')
      .default('10.77.0.200-10.77.0.250'),
    BLOOMERY_RAMDISK: z.string().default('./.cache/ramdisk/amd64'),
    /** Consoles of the ramdisk's kernel. */
    BLOOMERY_CONSOLES: z.string().default('tty0 ttyS0,115200n8'),
    /** Folders that file: images may come from, separated by colons. */
    BLOOMERY_IMAGE_FOLDERS: z.string().default(''),
    BLOOMERY_IMAGE_CACHE_GIB: z.coerce.number().positive().default(50),
    /** How many nodes may be in each phase at once. */
    BLOOMERY_LANES: numbers(DEFAULT_LANES),
    /** How long each kind of step may take, in seconds. */
    BLOOMERY_DEADLINES_S: numbers(DEFAULT_DEADLINES_S),
    /** Between two looks at a quiet node's power. 0 turns it off. */
    BLOOMERY_POWER_POLL_S: z.coerce.number().min(0).max(86_400).default(60),
    BLOOMERY_DRIVERS: z.string().optional(),
    BLOOMERY_LOG: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
  })
  .superRefine((env, context) => {
    const issue = apiIssue(env.BLOOMERY_API, env.BLOOMERY_API_UNPROTECTED === 'yes')
    if (issue) context.addIssue({ code: 'custom', path: ['BLOOMERY_API'], message: issue })
  })

const apiIssue = (where: string, isUnprotectedAccepted: boolean): string | null => {
  if (/^fd:\d+$/.test(where)) return null
  const [, host] = /^(.+):\d+$/.exec(where) ?? []
  if (host === undefined) return 'HOST:PORT, or fd:NUMBER'
  if (LOOPBACK.test(host.replace(/^\[(.*)\]$/, '$1')) || isUnprotectedAccepted) return null
  return `${host} can be reached by others, and there is no authentication yet; BLOOMERY_API_UNPROTECTED=yes accepts that`
}

export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

export type Config = ReturnType<typeof readConfig>

/** @throws {ConfigError} that names each setting that is wrong, and what would be right */
export const readConfig = (env: Readonly<Record<string, string | undefined>>) => {
  const unknown = Object.keys(env).filter((name) => name.startsWith('BLOOMERY_') && !(name in environment.shape))
  if (unknown.length > 0) throw new ConfigError(`there is no setting ${unknown.join(', ')}`)
  const parsed = environment.safeParse(env)
  if (!parsed.success) throw new ConfigError(z.prettifyError(parsed.error))
  const set = parsed.data
  const range = (text: string) => {
    const [first = '', last = ''] = text.split('-')
    return { first, last }
  }
  return {
    api: set.BLOOMERY_API,
    data_dir: set.BLOOMERY_DATA,
    store_path: set.BLOOMERY_STORE?.slice('sqlite:'.length) ?? `${set.BLOOMERY_DATA}/events.db`,
    master_key: set.BLOOMERY_MASTER_KEY,
    provisioning: set.BLOOMERY_PROVISIONING_INTERFACE
      ? {
          interface: set.BLOOMERY_PROVISIONING_INTERFACE,
          address: set.BLOOMERY_PROVISIONING_ADDRESS,
          address6: set.BLOOMERY_PROVISIONING_ADDRESS6,
          prefix: set.BLOOMERY_PROVISIONING_PREFIX,
          port: set.BLOOMERY_PROVISIONING_PORT,
          unknown_range: range(set.BLOOMERY_UNKNOWN_RANGE),
        }
      : null,
    node_range: range(set.BLOOMERY_NODE_RANGE),
    provisioning_url: `http://${set.BLOOMERY_PROVISIONING_ADDRESS}:${set.BLOOMERY_PROVISIONING_PORT}`,
    ramdisk_dir: set.BLOOMERY_RAMDISK,
    consoles: set.BLOOMERY_CONSOLES.split(' ').filter(Boolean),
    image_folders: set.BLOOMERY_IMAGE_FOLDERS.split(':').filter((folder) => folder && existsSync(folder)),
    image_cache_bytes: set.BLOOMERY_IMAGE_CACHE_GIB * GIB,
    lanes: set.BLOOMERY_LANES,
    deadlines_s: set.BLOOMERY_DEADLINES_S,
    power_poll_s: set.BLOOMERY_POWER_POLL_S,
    drivers_dir: set.BLOOMERY_DRIVERS,
    log_level: set.BLOOMERY_LOG,
  }
}
