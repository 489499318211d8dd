/** The SQLite file under the embedded store: its tables, its one writer, and the statements that read and write it. */
import { DatabaseSync } from 'node:sqlite'
import { type Json, type Recorded, StoreUnavailable } from './port.ts'
import { recentPlaces } from './recent-places.ts'

const SCHEMA_VERSION = 1
/** The log file is brought up to date from the WAL every so many pages (16 MiB): less often writes less, opens slower. */
const CHECKPOINT_PAGES = 4_096
const CACHE_KIB = 65_536
/** Events whose place in their stream is known from memory only, until they go into the index together (ADR 3). */
const UNINDEXED_EVENTS = 8_192

/** An event as it goes into the file: JSON already text, so that what is counted is what is written. */
export type Row = {
  readonly id: string
  readonly type: string
  readonly at: string
  readonly data: string
  readonly meta: string
}

export type Head = { readonly stream_id: number; readonly revision: number }
export type Page = { readonly events: readonly Recorded[]; readonly last: number }
type EventRow = Row & { readonly position: number; readonly stream: string; readonly revision: number }
type Place = { readonly stream_id: number; readonly revision: number; readonly position: number }

/**
 * `stream_index` and not UNIQUE (stream_id, revision) on `events`: with many streams active at once each event would
 * dirty an index page of its own, 4 KiB written for every 350 bytes; filled in bulk it costs a sixteenth of that.
 */
const SCHEMA = `
  CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT, stream_id INTEGER NOT NULL, revision INTEGER NOT NULL,
    id TEXT NOT NULL, type TEXT NOT NULL, at TEXT NOT NULL, data TEXT NOT NULL, meta TEXT NOT NULL
  ) STRICT;
  CREATE TABLE stream_index (
    stream_id INTEGER NOT NULL, revision INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (stream_id, revision)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE indexed (position INTEGER NOT NULL) STRICT;
  INSERT INTO indexed VALUES (0);
  PRAGMA user_version = ${SCHEMA_VERSION};`

const EVENT = 'e.position, s.name AS stream, e.revision, e.id, e.type, e.at, e.data, e.meta'

/** @throws {StoreUnavailable} when another process has it, when it is no log, or one of a newer version */
export const openLogFile = (path: string) => {
  const lock = path === ':memory:' ? undefined : takeLock(path)
  const db = openDatabase(path, () => lock?.close())
  const number = (sql: string) => (db.prepare(sql).get() as { n: number | null }).n ?? 0

  const findStream = db.prepare('SELECT id FROM streams WHERE name = ?')
  const insertStream = db.prepare('INSERT INTO streams (name) VALUES (?)')
  const insertEvent = db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)')
  const indexedRevision = db.prepare('SELECT max(revision) AS last FROM stream_index WHERE stream_id = ?')
  const atPosition = db.prepare(
    `SELECT ${EVENT} FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.position = ?`,
  )
  const indexed = db.prepare(
    `SELECT ${EVENT} FROM stream_index i JOIN events e USING (position) JOIN streams s ON s.id = e.stream_id
     WHERE i.stream_id = ? AND i.revision BETWEEN ? AND ? ORDER BY i.revision`,
  )
  const afterPosition = db.prepare(
    `SELECT ${EVENT} FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.position > ? ORDER BY e.position LIMIT ?`,
  )
  const unindexed = db.prepare('SELECT position, stream_id, revision FROM events WHERE position > ? ORDER BY position')
  const indexAll = db.prepare(
    `INSERT INTO stream_index SELECT stream_id, revision, position FROM events
     WHERE position > (SELECT position FROM indexed) AND position <= ? ORDER BY stream_id, revision`,
  )
  const indexedTo = db.prepare('UPDATE indexed SET position = ?')

  let last = number('SELECT max(position) AS n FROM events')
  const recent = recentPlaces()
  for (const row of unindexed.iterate(number('SELECT position AS n FROM indexed'))) {
    const { stream_id, revision, position } = row as Place
    recent.add(stream_id, revision, position)
  }

  const transaction = (work: () => void) => {
    const before = last
    try {
      db.exec('BEGIN IMMEDIATE')
      work()
      db.exec('COMMIT')
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      recent.forgetAfter(before)
      last = before
      throw error
    }
  }

  return {
    /** All that `work` writes, durable when this returns; or, when it throws, nothing. */
    transaction(work: () => void) {
      if (recent.size() >= UNINDEXED_EVENTS) {
        transaction(() => {
          indexAll.run(last)
          indexedTo.run(last)
        })
        recent.clear()
      }
      transaction(work)
    },
    /** Position of the last event, 0 when there is none. */
    last: () => last,
    head(stream: string): Head | undefined {
      const found = findStream.get(stream) as { id: number } | undefined
      if (!found) return undefined
      const last = recent.lastRevision(found.id) ?? (indexedRevision.get(found.id) as { last: number }).last
      return { stream_id: found.id, revision: last }
    },
    addStream: (stream: string): Head => ({
      stream_id: Number(insertStream.run(stream).lastInsertRowid),
      revision: -1,
    }),
    /** Only within a transaction. Returns the event's position. */
    add(stream_id: number, revision: number, row: Row): number {
      const position = last + 1
      insertEvent.run(position, stream_id, revision, row.id, row.type, row.at, row.data, row.meta)
      recent.add(stream_id, revision, position)
      last = position
      return position
    },
    /** Revisions `from` to `to` of a stream, both included, oldest first. */
    range(stream_id: number, from: number, to: number): Recorded[] {
      const first = recent.firstRevision(stream_id) ?? Number.POSITIVE_INFINITY
      const events =
        from < first ? (indexed.all(stream_id, from, Math.min(to, first - 1)) as EventRow[]).map(recorded) : []
      for (const position of recent.positions(stream_id, from, to)) {
        const row = atPosition.get(position) as EventRow | undefined
        if (row) events.push(recorded(row))
      }
      return events
    },
    /** Up to `limit` events after a position, fewer when they are large; `last` is how far it looked. */
    page(after: number, { limit, bytes }: { limit: number; bytes: number }, wanted: (stream: string) => boolean): Page {
      const events: Recorded[] = []
      let looked = after
      let room = bytes
      for (const found of afterPosition.iterate(after, limit)) {
        const row = found as EventRow
        looked = row.position
        if (!wanted(row.stream)) continue
        events.push(recorded(row))
        room -= row.data.length + row.meta.length
        if (room <= 0) break
      }
      return { events, last: looked }
    },
    close() {
      db.close()
      lock?.close()
    },
  }
}

/** What is told live is parsed from the text that was written, so that news and replay are the same to the letter. */
export const recordedFrom = (row: Row, stream: string, revision: number, position: number): Recorded => ({
  id: row.id,
  type: row.type,
  at: row.at,
  data: JSON.parse(row.data) as Json,
  meta: JSON.parse(row.meta) as Json,
  stream,
  revision,
  position: String(position),
})

const recorded = (row: EventRow): Recorded => recordedFrom(row, row.stream, row.revision, row.position)

const openDatabase = (path: string, release: () => void): DatabaseSync => {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path)
    const { version } = db.prepare('SELECT user_version AS version FROM pragma_user_version').get() as {
      version: number
    }
    const empty = db.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined
    if (version > SCHEMA_VERSION)
      throw new StoreUnavailable(
        `${path} was written by a newer version (schema ${version}, known is ${SCHEMA_VERSION})`,
      )
    if (version === 0 && !empty) throw new StoreUnavailable(`${path} is an SQLite file, but not an event log`)
    // FULL and not NORMAL: an acknowledged event must survive the power cut in the next millisecond.
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -${CACHE_KIB};
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`)
    if (empty) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`)
    return db
  } catch (error) {
    db?.close()
    release()
    if (error instanceof StoreUnavailable) throw error
    throw new StoreUnavailable(`cannot open the log ${path}: ${(error as Error).message}`, { cause: error })
  }
}

/** A file of its own, so that readers (a backup, the sqlite3 shell) are free; the kernel drops it with the process. */
const takeLock = (path: string): DatabaseSync => {
  let lock: DatabaseSync | undefined
  try {
    lock = new DatabaseSync(`${path}-lock`)
    lock.exec('BEGIN EXCLUSIVE')
    return lock
  } catch (error) {
    lock?.close()
    const why =
      (error as { errcode?: number }).errcode === SQLITE_BUSY ? 'another process is writing it' : String(error)
    throw new StoreUnavailable(`cannot open the log ${path}: ${why}`, { cause: error })
  }
}
const SQLITE_BUSY = 5
