/** Speaks IPMI 2.0 (RMCP+) with a controller, one `ipmitool` process per command. */
import { z } from 'zod'
import { readBootDevice, readGuid, readInfo, readPower, readSel, readSensors } from './ipmi-answers.ts'
import { type Asked, ipmiError, notStarted, quoted } from './ipmi-errors.ts'
import type { Ran, Run } from './ipmi-process.ts'
import { type Bmc, BmcError, type PowerState } from './port.ts'
import type { Traffic } from './traffic.ts'

export const ipmiOptions = z.strictObject({
  address: z
    .string()
    .max(253)
    .regex(/^[A-Za-z0-9][A-Za-z0-9.:_-]*$/, 'a host name or an IP address'),
  port: z.int().min(1).max(65_535).default(623),
  username: z.string().regex(/^[\x21-\x7e]{1,16}$/, '1 to 16 printable characters (IPMI 2.0 §22.28)'),
  privilege: z.enum(['USER', 'OPERATOR', 'ADMINISTRATOR']).default('ADMINISTRATOR'),
  /**
   * 17 is SHA-256 with AES, 3 is SHA-1 with AES for controllers before about 2016. The others are refused: 0 lets anybody in,
   * 1, 2, 6, 7, 11, 15 and 16 send commands in the clear, and ipmitool fails on those with MD5. Never left out: ipmitool would
   * spend 10 s asking controllers that do not say which they speak.
   */
  cipher_suite: z.literal([3, 17]).default(17),
  /** `-N`: how long to wait for the answer to the first sending of a message; each further one waits a second more. */
  timeout_s: z.int().min(1).max(10).default(2),
  /** `-R`, which counts how often a message is sent in all: 1 is "do not repeat". */
  retries: z.int().min(1).max(5).default(2),
  /** Ironic waits 5 s, since some controllers crash otherwise; most do not, and twenty times that patience costs minutes per deploy. */
  min_command_interval_ms: z.int().min(0).max(60_000).default(100),
  /** How the node boots, until discovery has seen it: a boot override carries it (§28.13, "BIOS boot type"). */
  firmware: z.enum(['bios', 'uefi']).default('uefi'),
})
export type IpmiOptions = z.infer<typeof ipmiOptions>

/** 20 bytes is all that IPMI 2.0 has room for (§22.30); some controllers have only 16. */
export const ipmiSecrets = z.strictObject({
  password: z
    .string()
    .min(1)
    .refine((password) => Buffer.byteLength(password) <= 20 && !password.includes('\0'), 'at most 20 bytes'),
})
export type IpmiSecrets = z.infer<typeof ipmiSecrets>

export type IpmiTools = { readonly traffic: Traffic; readonly run: Run }

export function ipmitoolBmc(options: IpmiOptions, { password }: IpmiSecrets, { traffic, run }: IpmiTools): Bmc {
  const { address, port, username, privilege, cipher_suite } = options
  const bmc = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
  const lane = { bmc, minInterval_ms: options.min_command_interval_ms }
  /**
   * The environment, not argv, which anybody on the machine can read. A process's environment is open to its own user and root
   * only, who could as well read our memory; a file would outlive a crash, and a pipe cannot be reopened by `-f /dev/fd/3`
   * (Node's are sockets). PATH apart, ipmitool gets nothing else from us.
   */
  const env = { IPMITOOL_PASSWORD: password, LC_ALL: 'C', TZ: 'UTC' }

  async function ask(
    { to, args, accepted, flags = ['-v'], sends = options.retries, patience_s = 20 }: Question,
    signal: AbortSignal,
  ) {
    const asked: Asked = { to, bmc, username, privilege, cipherSuite: cipher_suite, secret: password }
    const session = [
      '-I',
      'lanplus',
      '-H',
      address,
      '-p',
      port,
      '-U',
      username,
      '-E',
      '-L',
      privilege,
      '-C',
      cipher_suite,
    ]
    const argv = [...session, '-N', options.timeout_s, '-R', sends, ...flags, ...args].map(String)
    const deadline_ms = (silence_s(options.timeout_s, sends) + patience_s) * 1_000
    const ran: Ran = await traffic.inTurn(lane, signal, () =>
      run('ipmitool', argv, { env, deadline_ms, signal }).catch((cause: unknown) => {
        signal.throwIfAborted()
        throw notStarted(asked, cause)
      }),
    )
    // The exit code alone would lie: `chassis bootdev` exits with 0 when the controller has said no.
    if (ran.exit === 0 && accepted.test(ran.stdout)) return ran.stdout
    throw ipmiError(asked, ran)
  }

  const read = async <T>(question: Question, parse: (text: string) => T | null, signal: AbortSignal): Promise<T> => {
    const text = await ask(question, signal)
    const value = parse(text)
    if (value !== null) return value
    const answer = quoted(text.trim().split('\n').slice(0, 3).join(' | '), password)
    throw new BmcError(
      'unsupported',
      `Could not ${question.to} through the BMC at ${bmc}: it answered "${answer}", for which there is no word.`,
    )
  }
  const state = (signal: AbortSignal) => read(QUESTIONS.power, readPower, signal)
  const mcInfo = (signal: AbortSignal) => read(QUESTIONS.info, readInfo, signal)

  /** Some controllers say "not supported in present state" when asked for the state they are in. */
  async function unlessAlready(target: PowerState, question: Question, signal: AbortSignal) {
    try {
      await ask(question, signal)
    } catch (error) {
      if (!isBmcError(error, 'refused') || (await state(signal)) !== target) throw error
    }
  }

  return {
    power: {
      state,
      set: (target, signal) => unlessAlready(target, chassisPower(target, `switch the power ${target}`), signal),
      softOff: (signal) => unlessAlready('off', chassisPower('soft', 'ask the operating system to shut down'), signal),
      async reset(signal) {
        // What a reset does to a node that is off differs from an error to switching it on, so it is not sent.
        if ((await state(signal)) === 'off') {
          throw new BmcError(
            'refused',
            `Could not reset the node through the BMC at ${bmc}: it is off. Switch it on instead.`,
          )
        }
        await ask(
          { ...chassisPower('reset', 'reset the node (it may have been reset all the same)'), sends: 1 },
          signal,
        )
      },
    },
    management: {
      bootDevice: (signal) => read(QUESTIONS.bootDevice, readBootDevice, signal),
      async setBootDevice(device, { persistent, firmware }, signal) {
        await ask(QUESTIONS.keepOverride, signal).catch((error: unknown) => {
          if (!isBmcError(error, 'refused') && !isBmcError(error, 'unsupported')) throw error
        })
        const flags = [...(persistent ? ['persistent'] : []), ...(firmware === 'uefi' ? ['efiboot'] : [])]
        const args = ['chassis', 'bootdev', device, ...(flags.length > 0 ? [`options=${flags.join(',')}`] : [])]
        await ask({ to: `set the boot device to ${device}`, args, accepted: /^Set Boot Device to /m }, signal)
      },
      async identify(duration_s, signal) {
        const args = ['chassis', 'identify', String(Math.ceil(duration_s))]
        await ask({ to: 'blink the identify light', args, accepted: /^Chassis identify interval: /m }, signal)
      },
      sensors: (signal) => read(QUESTIONS.sensors, readSensors, signal),
      async systemEventLog(signal) {
        try {
          return await read(QUESTIONS.sel, readSel, signal)
        } catch (error) {
          // Without -v a silent controller, a wrong password and a wrong cipher suite look alike; ask again so that it shows.
          if (isBmcError(error, 'no-answer')) await mcInfo(signal)
          throw error
        }
      },
      async info(signal) {
        const info = await mcInfo(signal)
        const guid = await read(QUESTIONS.guid, readGuid, signal).catch((error: unknown) => {
          if (isBmcError(error, 'unsupported') || isBmcError(error, 'refused')) return null
          throw error
        })
        return { ...info, guid }
      },
    },
  }
}

/** `to` completes "could not …"; `accepted` is what a success prints; `sends` is 1 for what must not be done twice. */
type Question = {
  readonly to: string
  readonly args: readonly string[]
  readonly accepted: RegExp
  readonly flags?: readonly string[]
  readonly sends?: number
  readonly patience_s?: number
}

const ANYTHING = /(?:)/
const chassisPower = (command: string, to: string): Question => ({
  to,
  args: ['chassis', 'power', command],
  accepted: /^Chassis Power Control: /m,
})

/** Sensors and events take a round trip each, hundreds on a large node. */
const LISTING_PATIENCE_S = 180

const QUESTIONS = {
  power: { to: 'read the power state', args: ['chassis', 'power', 'status'], accepted: /^Chassis Power is /m },
  bootDevice: {
    to: 'read the boot device',
    args: ['chassis', 'bootparam', 'get', '5'],
    accepted: /^Boot parameter data: /m,
  },
  /**
   * Else the override is forgotten when the node is not switched within 60 s. Parameter 3, "do not clear on timeout"; a
   * controller without it is let be. @see IPMI 2.0 table 28-14
   */
  keepOverride: { to: 'keep the boot device', args: ['raw', '0x00', '0x08', '0x03', '0x08'], accepted: ANYTHING },
  sensors: {
    to: 'read the sensors',
    args: ['sdr', 'elist', 'full'],
    flags: ['-v', '-c'],
    accepted: ANYTHING,
    patience_s: LISTING_PATIENCE_S,
  },
  /** Not -v: it changes what is printed, and the names of the sensors are lost. */
  sel: {
    to: 'read the event log',
    args: ['sel', 'elist'],
    flags: ['-c'],
    accepted: ANYTHING,
    patience_s: LISTING_PATIENCE_S,
  },
  info: { to: 'ask who it is', args: ['mc', 'info'], accepted: /^IPMI Version/m },
  guid: { to: 'ask for its GUID', args: ['mc', 'guid'], accepted: /^System GUID/m },
} satisfies Record<string, Question>

/** How long ipmitool takes to give up: the first message is asked in two forms, each sent again after N, N+1, … seconds. */
function silence_s(timeout_s: number, sends: number): number {
  return 2 * Array.from({ length: sends }, (_, again) => timeout_s + again).reduce((sum, wait_s) => sum + wait_s, 0)
}

function isBmcError(error: unknown, code: BmcError['code']): boolean {
  return error instanceof BmcError && error.code === code
}
