/** The newest events of the log in memory, so that followers who keep up are never sent to the disk. */
import type { Recorded } from './port.ts'

const TAIL_EVENTS = 8_192
const TAIL_BYTES = 16_777_216

export type Tail = ReturnType<typeof openTail>

/** Positions in it have no gaps: one process writes the log, and it numbers the events itself. */
export const openTail = ({ events: most_events = TAIL_EVENTS, bytes: most_bytes = TAIL_BYTES } = {}) => {
  let events: Recorded[] = []
  let sizes: number[] = []
  let first = 0
  let bytes = 0

  /** Half at once, or each commit would move the whole array. */
  const trim = () => {
    let drop = 0
    while (drop < events.length && (events.length - drop > most_events / 2 || bytes > most_bytes / 2))
      bytes -= sizes[drop++] ?? 0
    events = events.slice(drop)
    sizes = sizes.slice(drop)
    first += drop
  }

  return {
    push(position: number, event: Recorded, size: number) {
      if (events.length === 0) first = position
      events.push(event)
      sizes.push(size)
      bytes += size
      if (events.length > most_events || bytes > most_bytes) trim()
    },
    /** Up to `limit` events after a position; undefined when they are no longer, or not yet, here. */
    after(position: number, limit: number): readonly Recorded[] | undefined {
      const start = position + 1 - first
      return start < 0 || start >= events.length ? undefined : events.slice(start, start + limit)
    },
    clear() {
      events = []
      sizes = []
      bytes = 0
    },
  }
}
