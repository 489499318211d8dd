/**
 * One-time tokens by which a ramdisk proves that it was booted for this attempt.
 *
 * A token says whom it is for, and carries a signature by the master key: so none is stored, and one that is refused can
 * be told apart (another node's, an older attempt's, a used one). It goes through the boot script to the kernel command
 * line; the log holds no token, only that it was used.
 */
import { timingSafeEqual } from 'node:crypto'
import type { Node } from '../../machines/node/machine.ts'
import { type MasterKey, tokenFor } from '../vault-key.ts'

type Scope = { readonly node: string; readonly attempt: number; readonly index: number }

const signature = (key: MasterKey, { node, attempt, index }: Scope) =>
  tokenFor(key, `agent ${node} ${attempt} ${index}`)

export const agentToken = (key: MasterKey, scope: Scope): string =>
  Buffer.from([scope.node, scope.attempt, scope.index, signature(key, scope)].join('.')).toString('base64url')

/** What a token says of itself, if we signed it. */
export const readAgentToken = (key: MasterKey, token: string): Scope | null => {
  const [node = '', attempt = '', index = '', signed = '', ...more] = Buffer.from(token, 'base64url')
    .toString()
    .split('.')
  if (more.length > 0 || !/^\d{1,15}$/.test(attempt) || !/^\d{1,15}$/.test(index)) return null
  const scope = { node, attempt: Number(attempt), index: Number(index) }
  const [given, right] = [Buffer.from(signed), Buffer.from(signature(key, scope))]
  return given.length === right.length && timingSafeEqual(given, right) ? scope : null
}

/** Index of the step that waits for a ramdisk, null when the node's work needs none to come up now. */
export const awaitedAgent = ({ work }: Node): number | null => {
  if (!work) return null
  const index = work.plan.findIndex(
    ({ interface: face, step }, place) => place >= work.cursor && face === 'boot' && step === 'agent',
  )
  return index === -1 || work.agent?.index === index ? null : index
}

/** Why a token is not accepted from this node now; null when it is. */
export const refusalOf = (scope: Scope, id: string, node: Node): string | null => {
  if (scope.node !== id) return 'the token was made for another node'
  if (!node.work) return 'the attempt that the token was made for is over'
  if (scope.attempt !== node.work.request.revision) return 'the token was made for an older attempt'
  if (node.work.agent && node.work.agent.index >= scope.index) return 'the token was used already'
  return awaitedAgent(node) === scope.index ? null : 'no ramdisk is awaited now'
}
