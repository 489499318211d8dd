/**
 * The log of events: one stream per thing, a total order over all streams, nothing ever changed or removed.
 *
 * The semantics are EventStoreDB's, so that a log may live in either (ADR 3): revisions start at 0, an append states the
 * revision it was decided on, a retry with the same event ids and the same revision is exact, positions are opaque.
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/** An event before it is recorded. `id` is a UUID, unlike any other in the log and fixed before the first try, so that a retry is the same event. */
export type NewEvent = {
  readonly id: string
  readonly type: string
  /** When it happened, by the writer's clock: ISO 8601, UTC, milliseconds. */
  readonly at: string
  readonly data: Json
  /** Who asked, which command, which attempt: see machines/recorded.ts. */
  readonly meta: Json
}

/** A place in the whole log. Opaque: only equal ones and those put through `EventStore.compare` mean something. */
export type Position = string

export type Recorded = NewEvent & {
  readonly stream: string
  /** Place in the stream; the first event is 0. */
  readonly revision: number
  readonly position: Position
}

export type Appended = { readonly revision: number; readonly position: Position }

/** Expected revision of a stream that must not exist yet. */
export const NO_STREAM = -1

/** The most bytes one append may carry (ids, types, data and metadata as stored), as EventStoreDB's default. */
export const MAX_APPEND_BYTES = 1_048_576

export type ReadOptions = {
  /** First revision to return (inclusive) going forwards, or backwards. Default: the first, or the last. */
  readonly from?: number
  readonly direction?: 'forwards' | 'backwards'
  /** The most events to return. Default: all. */
  readonly limit?: number
}

export type FollowOptions = {
  /** Exclusive: the position of the last event already seen. Default: from the beginning. */
  readonly after?: Position | undefined
  /** Only streams whose name begins with one of these. Default: every stream. */
  readonly prefixes?: readonly string[]
  readonly signal: AbortSignal
}

export interface EventStore {
  /**
   * Appends all of `events` or none, and resolves once they are durable.
   * @param expected revision of the last event that the writer saw; `NO_STREAM` for a stream that must be new
   * @throws {RevisionConflict} when somebody else appended in between: read again and decide again
   * @throws {AppendTooLarge} above `MAX_APPEND_BYTES`
   * @throws {StoreUnavailable} when it could not be made durable (disk full, I/O error, closed): nobody was told of it;
   *   to try again with the same ids and revision is safe
   * @throws {TypeError} on what could never be appended: no event, no UUID, no name for a stream
   */
  append(stream: string, expected: number, events: readonly NewEvent[]): Promise<Appended>
  /** Events of one stream. A stream that nobody wrote to is empty, not an error. */
  read(stream: string, options?: ReadOptions): Promise<readonly Recorded[]>
  /**
   * Everything after a position in recorded order, in batches; 'caught-up' once history ends; then news as it comes,
   * only after it is durable. Ends without an error when the signal aborts or the store closes. Events of one batch may
   * be shared with other followers: they are to be read, not changed.
   * @throws {TypeError} on a position that is none of this store's, or lies beyond its end
   */
  follow(options: FollowOptions): AsyncIterable<readonly Recorded[] | 'caught-up'>
  /** The position of the last event of the whole log, null when it is empty. */
  head(): Promise<Position | null>
  /** Negative, zero or positive, as for Array.sort. @throws {TypeError} on something that is no position of this store */
  compare(a: Position, b: Position): number
  /** Lets running appends finish, then closes. */
  close(): Promise<void>
}

export class RevisionConflict extends Error {
  override readonly name = 'RevisionConflict'
  readonly stream: string
  readonly expected: number
  readonly actual: number
  constructor(stream: string, expected: number, actual: number) {
    super(`stream ${stream}: expected revision ${expected}, found ${actual}`)
    this.stream = stream
    this.expected = expected
    this.actual = actual
  }
}

export class AppendTooLarge extends Error {
  override readonly name = 'AppendTooLarge'
}

export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable'
}
