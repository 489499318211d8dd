/** What a node was found to be made of, each time somebody looked, and what had changed since the time before. */
import type { Change, Hardware } from '../machines/node/discovery.ts'
import type { RecordedNodeEvent } from '../machines/node/machine.ts'

export type Inventory = {
  readonly revision: number
  readonly at: string
  readonly hardware: Hardware
  readonly changes: readonly Change[]
}

/** Newest last. */
export const inventories = (events: readonly RecordedNodeEvent[]): Inventory[] =>
  events.flatMap((event) =>
    event.type === 'DiscoverySucceeded' ? [{ revision: event.revision, at: event.at, ...event.data }] : [],
  )
