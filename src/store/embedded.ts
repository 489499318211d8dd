/** The default store: one SQLite file, one writer, and all appends of a tick made durable by one commit (ADR 3). */
import { type Follower, follow } from './follow.ts'
import { type Head, openLogFile, type Row, recordedFrom } from './log-file.ts'
import {
  type Appended,
  AppendTooLarge,
  type EventStore,
  MAX_APPEND_BYTES,
  type NewEvent,
  RevisionConflict,
  StoreUnavailable,
} from './port.ts'
import { openTail } from './tail.ts'

/** A commit takes at most about this many events, so that other work gets its turn between two of them. */
const GROUP_EVENTS = 2_048
/** Appends that wait for their commit; beyond it the writers are faster than the disk, and are told so. */
const PENDING_BYTES = 67_108_864
/** Streams whose last revision is remembered (about 100 bytes each); the others are looked up. */
const KNOWN_HEADS = 65_536
const STREAM_NAME_CHARACTERS = 255
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

type Pending = {
  readonly stream: string
  readonly expected: number
  readonly rows: readonly Row[]
  readonly bytes: number
  resolve(appended: Appended): void
  reject(error: unknown): void
}
type Outcome = Appended | RevisionConflict

/**
 * @param options.path the file, made when missing, with `-wal`, `-shm` and `-lock` beside it; `:memory:` for none
 * @throws {StoreUnavailable} when another process has it, when it is no log, or one of a newer version
 */
export const embeddedStore = ({ path }: { readonly path: string }): EventStore => {
  const log = openLogFile(path)
  const tail = openTail()
  const followers = new Set<Follower>()
  const heads = new Map<string, Head>()
  let pending: Pending[] = []
  let pending_bytes = 0
  let closing: Promise<void> | undefined

  const headOf = (stream: string): Head | undefined => {
    const known = heads.get(stream)
    if (known) return known
    const found = log.head(stream)
    if (found) remember(stream, found)
    return found
  }
  const remember = (stream: string, head: Head) => {
    if (heads.size >= KNOWN_HEADS && !heads.has(stream)) heads.delete(heads.keys().next().value ?? stream)
    heads.set(stream, head)
  }

  /** EventStoreDB's rule: a stream that is past `expected` by exactly these events has had this append before. */
  const repeated = (head: Head, { expected, rows }: Pending): Appended | undefined => {
    if (head.revision < expected + rows.length) return undefined
    const found = log.range(head.stream_id, expected + 1, expected + rows.length)
    const last = found.at(-1)
    if (!last || !rows.every((row, i) => row.id === found[i]?.id)) return undefined
    return { revision: last.revision, position: last.position }
  }

  const write = (append: Pending, fresh: Fresh[]): Outcome => {
    const { stream, expected, rows } = append
    const head = headOf(stream) ?? (expected === -1 ? log.addStream(stream) : undefined)
    const revision = head?.revision ?? -1
    if (!head || revision !== expected)
      return (head && repeated(head, append)) ?? new RevisionConflict(stream, expected, revision)
    let position = 0
    for (const [i, row] of rows.entries()) {
      position = log.add(head.stream_id, expected + 1 + i, row)
      fresh.push({ row, stream, revision: expected + 1 + i, position })
    }
    remember(stream, { stream_id: head.stream_id, revision: expected + rows.length })
    return { revision: expected + rows.length, position: String(position) }
  }

  const flush = () => {
    const group = takeGroup()
    const outcomes: Outcome[] = []
    const fresh: Fresh[] = []
    try {
      log.transaction(() => {
        for (const append of group) outcomes.push(write(append, fresh))
      })
    } catch (error) {
      heads.clear()
      const message = `cannot write the log ${path}, nothing was kept: ${(error as Error).message}`
      for (const append of group) append.reject(new StoreUnavailable(message, { cause: error }))
      return
    }
    tell(fresh)
    for (const [i, append] of group.entries()) {
      const outcome = outcomes[i] as Outcome
      if (outcome instanceof RevisionConflict) append.reject(outcome)
      else append.resolve(outcome)
    }
  }

  const takeGroup = () => {
    let events = 0
    let end = 0
    while (end < pending.length && events < GROUP_EVENTS) {
      events += pending[end]?.rows.length ?? 0
      pending_bytes -= pending[end]?.bytes ?? 0
      end += 1
    }
    const group = pending.slice(0, end)
    pending = pending.slice(end)
    if (pending.length > 0) setImmediate(flush)
    return group
  }

  /** Before the appends resolve, so that a writer who goes on to read finds what follows the log already up to date. */
  const tell = (fresh: readonly Fresh[]) => {
    if (followers.size === 0) return tail.clear()
    for (const { row, stream, revision, position } of fresh)
      tail.push(position, recordedFrom(row, stream, revision, position), row.data.length + row.meta.length)
    for (const follower of followers) follower.wake()
  }

  const positionOf = (position: string): number => {
    if (!/^[1-9]\d{0,15}$/.test(position))
      throw new TypeError(`${JSON.stringify(position)} is no position of this store`)
    return Number(position)
  }

  return {
    append: (stream, expected, events) =>
      new Promise((resolve, reject) => {
        if (closing !== undefined) throw new StoreUnavailable(`the log ${path} is closed`)
        const { rows, bytes } = rowsOf(stream, expected, events)
        if (pending_bytes + bytes > PENDING_BYTES)
          throw new StoreUnavailable(`the log ${path} cannot keep up: ${pending_bytes} bytes wait to be written`)
        if (pending.length === 0) setImmediate(flush)
        pending.push({ stream, expected, rows, bytes, resolve, reject })
        pending_bytes += bytes
      }),

    async read(stream, { from, direction = 'forwards', limit = Number.MAX_SAFE_INTEGER } = {}) {
      if (closing !== undefined) throw new StoreUnavailable(`the log ${path} is closed`)
      const head = headOf(stream)
      if (!head || limit <= 0) return []
      if (direction === 'forwards') {
        const first = Math.max(0, from ?? 0)
        return log.range(head.stream_id, first, Math.min(head.revision, first + limit - 1))
      }
      const last = Math.min(from ?? head.revision, head.revision)
      return log.range(head.stream_id, Math.max(0, last - limit + 1), last).reverse()
    },

    follow(options) {
      const after = options.after === undefined ? 0 : positionOf(options.after)
      // A checkpoint beyond the end means a log restored from an older copy: to wait there would lose its news.
      if (after > log.last()) throw new TypeError(`position ${after} is beyond the end of the log ${path}`)
      const source = { tail, followers, last: log.last, page: log.page }
      return { [Symbol.asyncIterator]: () => follow(source, after, options) }
    },

    head: async () => (log.last() === 0 ? null : String(log.last())),
    compare: (a, b) => positionOf(a) - positionOf(b),

    close() {
      closing ??= (async () => {
        while (pending.length > 0) await new Promise((resolve) => setImmediate(resolve))
        for (const follower of [...followers]) follower.end()
        log.close()
      })()
      return closing
    },
  }
}

type Fresh = { readonly row: Row; readonly stream: string; readonly revision: number; readonly position: number }

/** Whatever is wrong with one append is found here, alone, and not in the commit that it would share with others. */
const rowsOf = (stream: string, expected: number, events: readonly NewEvent[]) => {
  if (stream === '' || stream.length > STREAM_NAME_CHARACTERS || !stream.isWellFormed())
    throw new TypeError(`${JSON.stringify(stream)} is no name for a stream`)
  if (!Number.isSafeInteger(expected) || expected < -1) throw new TypeError(`${expected} is no revision`)
  if (events.length === 0) throw new TypeError(`nothing to append to ${stream}`)
  let bytes = 0
  const rows = events.map(({ id, type, at, data, meta }): Row => {
    if (!UUID.test(id)) throw new TypeError(`${JSON.stringify(id)} is no event id: a UUID`)
    if (type === '' || data === undefined || meta === undefined) throw new TypeError(`event ${id} is incomplete`)
    const row = { id, type, at, data: JSON.stringify(data), meta: JSON.stringify(meta) }
    bytes += id.length + Buffer.byteLength(type) + Buffer.byteLength(row.data) + Buffer.byteLength(row.meta)
    return row
  })
  if (bytes > MAX_APPEND_BYTES)
    throw new AppendTooLarge(`an append to ${stream} has ${bytes} bytes, the most is ${MAX_APPEND_BYTES}`)
  return { rows, bytes }
}
