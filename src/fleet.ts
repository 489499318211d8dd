/**
 * Every node as its events tell it, folded once as the log is followed, and kept in memory.
 *
 * Commands decide on it, effects are run from it, and queries that need the newest state read it. It is never ahead of
 * the log: an event is folded only after the store made it durable.
 */
import { blank, evolve, type Node, type RecordedNodeEvent, stateOf } from '../machines/node/machine.ts'
import { meta } from '../machines/recorded.ts'
import { checked, isKnownType } from './schemas.ts'
import {
  type Appended,
  type EventStore,
  type NewEvent,
  type Position,
  type Recorded,
  StoreUnavailable,
} from './store/port.ts'

export type Fleet = ReturnType<typeof openFleet>
/** Called after each event with the node as it was and as it is. Must not throw. */
export type FleetListener = (id: string, event: RecordedNodeEvent, node: Node, before: Node) => void

export const NODE_PREFIX = 'node-'

/** An event of the log as the machine takes it. @throws when the log holds something that no schema knows */
export const readNodeEvent = (recorded: Recorded): RecordedNodeEvent => {
  const { type, id, stream, revision, position, at } = recorded
  if (!isKnownType(type)) throw new Error(`${stream} revision ${revision}: no schema for ${type}`)
  return { ...checked(type, recorded.data), id, stream, revision, position, at, meta: meta.parse(recorded.meta) }
}

export const openFleet = (store: EventStore) => {
  /** Ids of events that this process made valid and is appending: they are not doubted again when they come back. */
  const own = new Set<string>()
  const nodes = new Map<string, Node>()
  const byName = new Map<string, string>()
  const byMac = new Map<string, string>()
  const byInstance = new Map<string, string>()
  const listeners = new Set<FleetListener>()
  const followers = new Set<FleetListener>()
  const watchers = new Map<string, Set<(node: Node) => void>>()
  const waiting = new Set<{ position: Position; resolve: () => void }>()
  const ready = Promise.withResolvers<void>()
  let head: Position | null = null
  let caughtUp = false
  let trouble: string | null = null

  const index = (id: string, before: Node, after: Node) => {
    const gone = stateOf(after) === 'forgotten'
    if (before.facts.name !== after.facts.name || gone) {
      if (byName.get(before.facts.name) === id) byName.delete(before.facts.name)
      if (!gone) byName.set(after.facts.name, id)
    }
    if (before.facts.ports !== after.facts.ports || gone) {
      for (const { mac } of before.facts.ports) if (byMac.get(mac) === id) byMac.delete(mac)
      if (!gone) for (const { mac } of after.facts.ports) byMac.set(mac, id)
    }
    if (before.facts.instance?.id !== after.facts.instance?.id) {
      if (before.facts.instance) byInstance.delete(before.facts.instance.id)
      if (after.facts.instance) byInstance.set(after.facts.instance.id, id)
    }
  }

  const fold = (recorded: Recorded) => {
    const id = recorded.stream.slice(NODE_PREFIX.length)
    const event = own.delete(recorded.id) ? (recorded as RecordedNodeEvent) : readNodeEvent(recorded)
    const before = nodes.get(id) ?? blank
    const after = evolve(before, event, event.at, event.meta.command)
    nodes.set(id, after)
    index(id, before, after)
    head = recorded.position
    for (const follower of followers) follower(id, event, after, before)
    if (!caughtUp) return
    for (const listener of listeners) listener(id, event, after, before)
    for (const watcher of watchers.get(id) ?? []) watcher(after)
  }

  const release = () => {
    for (const entry of waiting) {
      if (head === null || store.compare(head, entry.position) < 0) continue
      waiting.delete(entry)
      entry.resolve()
    }
  }

  return {
    /** Follows the log until the signal aborts. @throws on an event that the machine has no word for: never skipped */
    async run(signal: AbortSignal) {
      try {
        for await (const batch of store.follow({ prefixes: [NODE_PREFIX], signal })) {
          if (batch === 'caught-up') {
            caughtUp = true
            ready.resolve()
          } else {
            for (const recorded of batch) fold(recorded)
            release()
          }
        }
      } catch (error) {
        ready.reject(error)
        throw error
      }
    },
    /** Resolves once history has been read to its end; rejects when it cannot be. */
    ready: ready.promise,
    isReady: () => caughtUp,
    /** Why the log could not be written when last tried; null when it could. */
    trouble: () => trouble,
    get: (id: string): Node | undefined => nodes.get(id),
    /** By id or by name. */
    find(key: string): { id: string; node: Node } | null {
      const id = nodes.has(key) ? key : byName.get(key)
      const node = id === undefined ? undefined : nodes.get(id)
      return id !== undefined && node ? { id, node } : null
    },
    withMac: (mac: string): string | undefined => byMac.get(mac),
    withInstance: (instance: string): string | undefined => byInstance.get(instance),
    entries: (): IterableIterator<[string, Node]> => nodes.entries(),
    size: () => nodes.size,
    head: () => head,
    /** Resolves once the fold has come as far as that position. */
    reached(position: Position): Promise<void> {
      if (head !== null && store.compare(head, position) >= 0) return Promise.resolve()
      return new Promise((resolve) => waiting.add({ position, resolve }))
    },
    /** Appends events that were made valid: they are taken as they are when they come back from the log. */
    async append(stream: string, expected: number, news: readonly NewEvent[]): Promise<Appended> {
      for (const { id } of news) own.add(id)
      try {
        const appended = await store.append(stream, expected, news)
        trouble = null
        return appended
      } catch (error) {
        if (error instanceof StoreUnavailable) trouble = error.message
        for (const { id } of news) own.delete(id)
        throw error
      }
    },
    /** Only news: history is not told. Returns the way to stop listening. */
    listen(listener: FleetListener): () => void {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    /** History as well as news, in the order of the log; to be called before `run`. */
    follow(follower: FleetListener): void {
      followers.add(follower)
    },
    /** As `listen`, for one node. */
    watch(id: string, watcher: (node: Node) => void): () => void {
      const own = watchers.get(id) ?? new Set()
      watchers.set(id, own.add(watcher))
      return () => {
        own.delete(watcher)
        if (own.size === 0 && watchers.get(id) === own) watchers.delete(id)
      }
    },
  }
}
