/** The one way into the log: decide on the newest state, append on its revision, decide again when somebody was first. */
import { blank, evolve, MACHINE_VERSION, type Node, type NodeEvent } from '../machines/node/machine.ts'
import type { Meta } from '../machines/recorded.ts'
import type { Clock, Ids } from './clock.ts'
import { type Fleet, NODE_PREFIX } from './fleet.ts'
import { checked } from './schemas.ts'
import { type Appended, type EventStore, type Json, type NewEvent, RevisionConflict } from './store/port.ts'

export type Commit = ReturnType<typeof openCommit>

/** How often a decision is taken anew because somebody else appended in between. */
const MAX_DECISIONS = 16

/** The most bytes that the data of one event may have; larger things go to the blob store (ADR 6). */
export const MAX_EVENT_BYTES = 65_536

export class EventTooLarge extends Error {
  override readonly name = 'EventTooLarge'
}

export type Cause = Pick<Meta, 'actor' | 'command'>

export const openCommit = (store: EventStore, fleet: Fleet, clock: Clock, ids: Ids) => {
  /**
   * Appends what `decide` returns for the node as it is now; nothing when it returns nothing.
   * @throws {UnexpectedEvent} when the node has no room for one of the events
   * @throws {EventTooLarge} above `MAX_EVENT_BYTES`
   * @throws {StoreUnavailable} when it could not be made durable
   */
  return async (id: string, cause: Cause, decide: (node: Node) => readonly NodeEvent[]): Promise<Appended | null> => {
    for (let decision = 1; ; decision++) {
      const node = fleet.get(id) ?? blank
      const decided = decide(node).map((event) => valid(event))
      if (decided.length === 0) return null
      const at = clock.now().toISOString()
      decided.reduce((state, event) => evolve(state, event, at), node)
      const news = decided.map((event): NewEvent => {
        const meta = { ...cause, machine: MACHINE_VERSION } satisfies Meta
        return { id: ids.uuid(), type: event.type, at, data: event.data as Json, meta }
      })
      try {
        const appended = await fleet.append(NODE_PREFIX + id, node.revision, news)
        await fleet.reached(appended.position)
        return appended
      } catch (error) {
        if (!(error instanceof RevisionConflict) || decision === MAX_DECISIONS) throw error
        const [last] = await store.read(NODE_PREFIX + id, { direction: 'backwards', limit: 1 })
        if (last) await fleet.reached(last.position)
      }
    }
  }
}

/** @throws {ZodError} when the event is not what its schema says, {EventTooLarge} when it is too large for the log */
const valid = ({ type, data }: NodeEvent): NodeEvent => {
  const event = checked(type, data)
  if (Buffer.byteLength(JSON.stringify(event.data)) > MAX_EVENT_BYTES) {
    throw new EventTooLarge(`${type}: more than ${MAX_EVENT_BYTES} bytes; keep the document in the blob store`)
  }
  return event
}
