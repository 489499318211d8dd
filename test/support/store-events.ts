/** Events to put into a log, and a reader that waits for what a follower is told. */
import { randomUUID } from 'node:crypto'
import type { EventStore, FollowOptions, Json, NewEvent, Recorded } from '../../src/store/port.ts'

/** Nothing in the store's tests takes longer, short of a hang. */
const PATIENCE_MS = 20_000

export const anEvent = (data: Json = {}): NewEvent => ({
  id: randomUUID(),
  type: 'PowerStateChanged',
  at: '2026-01-01T00:00:00.000Z',
  data,
  meta: { by: 'test' },
})

export const events = (count: number, data: Json = {}): NewEvent[] => Array.from({ length: count }, () => anEvent(data))

export type Told = Recorded | 'caught-up'

/** Collects what a follower is told until `enough`, then stops following. */
export const told = async (
  store: EventStore,
  options: Omit<FollowOptions, 'signal'>,
  enough: (told: readonly Told[]) => boolean,
): Promise<Told[]> => {
  const all: Told[] = []
  const stop = AbortSignal.timeout(PATIENCE_MS)
  for await (const batch of store.follow({ ...options, signal: stop })) {
    if (batch === 'caught-up') all.push(batch)
    else all.push(...batch)
    if (enough(all)) return all
  }
  throw new Error(`the follower was told ${all.length} things in ${PATIENCE_MS} ms, and not enough`)
}

export const isEvent = (item: Told): item is Recorded => item !== 'caught-up'
