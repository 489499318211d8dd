/** Who an agent is: a one-time token buys it a session, of which the log keeps the hash. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { macAddress } from '../../machines/node/enrolment.ts'
import type { Node } from '../../machines/node/machine.ts'
import type { Blobs } from '../blobs.ts'
import type { Ids } from '../clock.ts'
import type { Commit } from '../commit.ts'
import type { Fleet } from '../fleet.ts'
import { type MasterKey, tokenFor } from '../vault-key.ts'
import { readAgentToken, refusalOf } from './tokens.ts'

export type Session = { readonly id: string; readonly attempt: number }
export type Hello =
  | { readonly kind: 'welcome'; readonly session: string; readonly id: string }
  | { readonly kind: 'refused'; readonly reason: string }

/** The most bytes that an inventory document may have. */
export const MAX_INVENTORY_BYTES = 1_048_576
/** Refusals of one node for one reason are recorded at most this often: a loop in a ramdisk must not fill the log. */
const REFUSAL_EVERY_MS = 10_000

/** How many sessions that are over are told from ones that never were. */
const MAX_PAST_SESSIONS = 4096

/** What must be in an inventory for the agent to be known by it; the rest is read where it is used. */
const whoseInventory = z.object({
  nics: z.array(z.object({ mac: macAddress })).max(256),
  boot_nic: macAddress.optional(),
})

export type SessionTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly blobs: Blobs
  readonly key: MasterKey
  readonly ids: Ids
  readonly now: () => Date
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

export const openSessions = ({ fleet, commit, blobs, key, ids, now }: SessionTools) => {
  /** Sessions of work that is going on, by hash: from the fold, so that they outlive a restart. */
  const live = new Map<string, Session>()
  /** Sessions that are over, the newest: what still comes from them is late, not unknown. */
  const past = new Map<string, Session>()
  const refusedAt = new Map<string, number>()

  fleet.follow((id, _, after, before) => {
    const [was, is] = [before.work?.agent?.session_sha256, after.work?.agent?.session_sha256]
    if (was === is) return
    if (was !== undefined) end(was)
    if (is !== undefined && after.work) live.set(is, { id, attempt: after.work.request.revision })
  })

  const end = (hash: string) => {
    const session = live.get(hash)
    live.delete(hash)
    if (session) past.set(hash, session)
    if (past.size > MAX_PAST_SESSIONS) past.delete(past.keys().next().value ?? '')
  }

  /** Records that somebody was turned away, on the node that it concerns. */
  const recordRefusal = async (id: string, reason: string, address: string, attempt: number | null) => {
    const about = `${id} ${reason}` // the reasons are few: see refusalOf
    const last_ms = refusedAt.get(about)
    const now_ms = now().getTime()
    if (last_ms !== undefined && now_ms - last_ms < REFUSAL_EVERY_MS) return
    refusedAt.set(about, now_ms)
    await commit(id, { actor: { kind: 'agent', name: address } }, () => [
      { type: 'AgentRefused', data: { reason, address, attempt } },
    ])
  }

  const refuse = async (
    id: string | undefined,
    reason: string,
    address: string,
    attempt: number | null,
  ): Promise<Hello> => {
    if (id !== undefined && fleet.get(id)) await recordRefusal(id, reason, address, attempt)
    return { kind: 'refused', reason }
  }

  return {
    /**
     * @param inventory what the agent says of the node that it runs on
     * @param nonce the agent's own, new with each boot: it is answered again if the first answer was lost on the way
     */
    async hello(token: string, inventory: unknown, address: string, nonce: string): Promise<Hello> {
      const parsed = whoseInventory.safeParse(inventory)
      if (!parsed.success)
        return { kind: 'refused', reason: `the inventory is not readable: ${z.prettifyError(parsed.error)}` }
      const macs = [...(parsed.data.boot_nic ? [parsed.data.boot_nic] : []), ...parsed.data.nics.map(({ mac }) => mac)]
      const id = macs.map((mac) => fleet.withMac(mac)).find((found) => found !== undefined)
      const scope = readAgentToken(key, token)
      if (!scope) return refuse(id, 'the token is not one of ours', address, null)
      const node = id === undefined ? undefined : fleet.get(id)
      if (id === undefined || !node)
        return refuse(scope.node, 'none of its MACs belongs to a node', address, scope.attempt)
      const session = nonce ? tokenFor(key, `session ${id} ${scope.attempt} ${scope.index} ${nonce}`) : ids.secret()
      const isAskedAgain = (newest: Node) =>
        newest.work?.request.revision === scope.attempt && newest.work.agent?.session_sha256 === sha256(session)
      if (isAskedAgain(node)) return { kind: 'welcome', session, id }
      const reason = refusalOf(scope, id, node)
      if (reason) return refuse(id, reason, address, scope.attempt)

      const document = await blobs.put(Buffer.from(JSON.stringify(inventory)), { limit_bytes: MAX_INVENTORY_BYTES })
      const data = { attempt: scope.attempt, index: scope.index, session_sha256: sha256(session), address, document }
      let taken = false
      await commit(id, { actor: { kind: 'agent', name: address } }, (newest: Node) => {
        // Decided again on each try: of two agents with one token only one gets in.
        taken = refusalOf(scope, id, newest) === null
        if (!taken) return []
        return [
          { type: 'BootObserved', data: { attempt: scope.attempt, kind: 'agent', detail: `from ${address}` } },
          { type: 'AgentConnected', data },
        ]
      })
      const newest = fleet.get(id)
      if (taken || (newest && isAskedAgain(newest))) return { kind: 'welcome', session, id }
      return refuse(id, 'the token was used already', address, scope.attempt)
    },

    /** Whose session it is; null when it is over or never was. */
    of: (session: string): Session | null => live.get(sha256(session)) ?? null,

    /** Whose session it was, if it is over and not long forgotten. */
    wasOf: (session: string): Session | null => past.get(sha256(session)) ?? null,

    recordRefusal,
  }
}
