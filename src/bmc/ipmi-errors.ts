/** Tells from what `ipmitool -v` prints why a command did not succeed: its exit code is 1 for everything, and 0 for some failures. */

import type { Ran } from './ipmi-process.ts'
import { BmcError, type BmcErrorCode } from './port.ts'

/** `to` completes "could not …". The secret is cut out of whatever is quoted. */
export type Asked = {
  readonly to: string
  readonly bmc: string
  readonly username: string
  readonly privilege: string
  readonly cipherSuite: number
  readonly secret: string
}

export function ipmiError(asked: Asked, { exit, stopped, stderr }: Ran): BmcError {
  if (stopped === 'deadline') return error(asked, 'no-answer', ['it did not finish in time', DEAD], '')
  if (stopped === 'too-much-output')
    return error(asked, 'refused', ['it never stopped answering', 'Reset the BMC.'], '')
  const said = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !NOISE.test(line))
  for (const [pattern, code, explain] of REASONS) {
    const line = said.find((candidate) => pattern.test(candidate))
    if (line !== undefined) return error(asked, code, explain(asked), line)
  }
  const quote = said.join(' | ')
  if (exit === null || exit > 127) return error(asked, 'unsupported', ['ipmitool crashed', suite(asked)], quote)
  // Nothing but "unable to …" and no word from the other side: that is how ipmitool says that it waited in vain.
  return error(asked, 'no-answer', ['nothing came back', DEAD], quote)
}

/** When ipmitool itself could not be started. */
export function notStarted(asked: Asked, cause: unknown): BmcError {
  const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
  const why: Why = missing
    ? ['ipmitool is not installed here', 'Install the package ipmitool on the machine that runs Bloomery.']
    : ['ipmitool could not be started', 'Look at the memory and process limits of the machine that runs Bloomery.']
  return error(asked, missing ? 'unsupported' : 'no-answer', why, '', { cause })
}

type Why = readonly [what: string, advice: string]
type Reason = readonly [pattern: RegExp, code: BmcErrorCode, explain: (asked: Asked) => Why]

/** With -v, ipmitool tries some vendors' extensions first and reports that they are missing; that says nothing about us. */
const NOISE =
  /^(Loading IANA|Running Get|Get HPM\.x|Invalid completion code received|Discovered IPMB|RAW R|Close Session)/

const DEAD =
  'Check its power, cable, VLAN and that IPMI over LAN is enabled; a hung BMC needs its own reset or a power drain.'
const suite = ({ cipherSuite }: Asked) =>
  `The BMC does not speak cipher suite ${cipherSuite}; set cipher_suite to ${cipherSuite === 3 ? 17 : 3}.`
const rights = ({ username, privilege }: Asked): Why => [
  `user ${username} may not do that as ${privilege}`,
  'Give the user that privilege on the LAN channel of the BMC, or set privilege to what it has.',
]
const busy = (): Why => ['the BMC is busy', 'Try again in a minute.']

/** First match wins, so what happens first in a session stands first. The words are ipmitool's, for status and completion codes. */
const REASONS: readonly Reason[] = [
  [
    /^Address lookup for .* failed/,
    'no-answer',
    () => ['its name has no address', 'Correct the address, or look at the DNS.'],
  ],
  [
    /RAKP [24] .*(HMAC is invalid|invalid integrity check value)/,
    'wrong-credentials',
    ({ username }) => [`the password of user ${username} is wrong`, 'Store the right password for this node.'],
  ],
  [
    /unauthorized name|invalid username length|Invalid user name/i,
    'wrong-credentials',
    ({ username }) => [
      `there is no enabled user ${username}`,
      'Correct the username, or enable it for IPMI over LAN on the BMC.',
    ],
  ],
  [
    /unauthorized role or privilege|invalid role|Insufficient privilege|privilege level .*(unavailable|exceeds)/i,
    'wrong-credentials',
    rights,
  ],
  [
    /insufficient resources to create a session/,
    'refused',
    () => ['all sessions of the BMC are taken', 'Close other clients, or wait a minute until idle sessions end.'],
  ],
  [
    /(invalid|no matching) (authentication|integrity|confidentiality) |no cipher suite match|Error in open session response/,
    'unsupported',
    (asked) => ['no session could be agreed on', suite(asked)],
  ],
  [/Set Session Privilege Level to \w+ failed: /, 'wrong-credentials', rights],
  [/Assertion .* failed/, 'unsupported', (asked) => ['ipmitool crashed', suite(asked)]],
  [
    /: (Node busy|Timeout|BMC initialization in progress|Device firmware in update mode|Out of space)$/,
    'refused',
    busy,
  ],
  [
    /: (Invalid command|Invalid command on LUN|Invalid data field in request|Parameter out of range|Unknown \(0x80\))$/,
    'unsupported',
    () => ['the BMC has no such command', 'Update its firmware, or do this step by hand or by another driver.'],
  ],
  [
    /: Command not supported in present state$/,
    'refused',
    () => ['not in the state it is in', 'Look at the power state of the node, then try again.'],
  ],
  [
    /(failed|indicates an error |Unable to send RAW command.*): \S/,
    'refused',
    () => ['the BMC said no', 'Look at its event log and front panel; if it says no to everything, reset the BMC.'],
  ],
  [/Given interval is too big/, 'unsupported', () => ['IPMI knows no such duration', 'Ask for 255 s or less.']],
]

function error({ to, bmc, secret }: Asked, code: BmcErrorCode, why: Why, quote: string, options?: ErrorOptions) {
  const [what, advice] = why
  const said = quote === '' ? '' : ` (ipmitool said: "${quoted(quote, secret)}")`
  return new BmcError(code, `Could not ${to} through the BMC at ${bmc}: ${what}${said}. ${advice}`, options)
}

/** Cut after the secret is out, or half of it could stay. */
export function quoted(text: string, secret: string): string {
  return text.replaceAll(secret, '[password]').slice(0, MAX_QUOTE_CHARS)
}

const MAX_QUOTE_CHARS = 400
