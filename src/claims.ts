/**
 * Names and MACs belong to one node each, without a lock: a claim is a stream of its own, appended with the revision
 * that the claimant saw, so that of two only one can win (ADR 7).
 *
 * A claim needs no release: it is stale once its holder is forgotten or has moved on, which the holder's own events
 * say; then the next claimant appends behind it. (A claimant that gives up says so, as a courtesy.) A holder that is not in the log yet may still be on its way, so a
 * young claim counts whatever the holder's events say.
 */

import { stateOf } from '../machines/node/machine.ts'
import type { Clock, Ids } from './clock.ts'
import type { Cause } from './commit.ts'
import type { Fleet } from './fleet.ts'
import { type EventStore, type Json, NO_STREAM, RevisionConflict } from './store/port.ts'

export type Claims = ReturnType<typeof openClaims>
export type ClaimKind = 'name' | 'mac'

/** How long the claim of a node that is not in the log yet is honoured. */
const CLAIM_GRACE_S = 60
const MAX_TRIES = 9

export class ClaimRefused extends Error {
  override readonly name = 'ClaimRefused'
  readonly kind: ClaimKind
  readonly value: string
  readonly holder: string
  constructor(kind: ClaimKind, value: string, holder: string, holderName: string | null) {
    super(
      `${kind === 'mac' ? 'MAC' : 'name'} ${value} belongs to ${holderName ? `node ${holderName}` : `node ${holder}`}`,
    )
    this.kind = kind
    this.value = value
    this.holder = holder
  }
}

export const openClaims = (store: EventStore, fleet: Fleet, clock: Clock, ids: Ids) => {
  const holds = (holder: string, kind: ClaimKind, value: string, isYoung: boolean): boolean => {
    const node = fleet.get(holder)
    if (!node) return isYoung
    if (stateOf(node) === 'forgotten') return false
    // A claim is taken just before the event that uses it: a young one counts although nothing uses it yet.
    if (isYoung) return true
    return kind === 'name' ? node.facts.name === value : node.facts.ports.some(({ mac }) => mac === value)
  }

  /** Takes a name or a MAC for a node, or finds that the node has it already. @throws {ClaimRefused} */
  const take = async (kind: ClaimKind, value: string, node: string, cause: Cause): Promise<void> => {
    const stream = streamOf(kind, value)
    for (let attempt = 1; ; attempt++) {
      // Most are free and were never taken: that is tried first, and looked at only when it is not so.
      const [last] = attempt === 1 ? [] : await store.read(stream, { direction: 'backwards', limit: 1 })
      const holder = last?.type === 'Claimed' ? (last.data as { node?: string }).node : undefined
      if (last && holder === node) return
      if (last && holder !== undefined) {
        const isYoung = clock.now().getTime() - Date.parse(last.at) < CLAIM_GRACE_S * 1000
        if (holds(holder, kind, value, isYoung)) {
          throw new ClaimRefused(kind, value, holder, fleet.get(holder)?.facts.name ?? null)
        }
      }
      const at = clock.now().toISOString()
      const data: Json = { kind, value, node }
      try {
        await store.append(stream, last?.revision ?? NO_STREAM, [
          { id: ids.uuid(), type: 'Claimed', at, data, meta: { ...cause } as Json },
        ])
        return
      } catch (error) {
        if (!(error instanceof RevisionConflict) || attempt === MAX_TRIES) throw error
      }
    }
  }

  /** Gives up what was just claimed and not used. */
  const release = async (kind: ClaimKind, value: string, node: string, cause: Cause): Promise<void> => {
    const stream = streamOf(kind, value)
    const [last] = await store.read(stream, { direction: 'backwards', limit: 1 })
    if (last?.type !== 'Claimed' || (last.data as { node?: string }).node !== node) return
    const at = clock.now().toISOString()
    const event = { id: ids.uuid(), type: 'ClaimReleased', at, data: { kind, value, node }, meta: { ...cause } as Json }
    await store.append(stream, last.revision, [event])
  }
  return { take, release }
}

const streamOf = (kind: ClaimKind, value: string) => `claim-${kind}-${value.replaceAll(':', '')}`
