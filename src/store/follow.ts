/** One reader's way through the log: pages from the file until it has caught up, then each commit from memory. */
import type { Page } from './log-file.ts'
import type { FollowOptions, Recorded } from './port.ts'
import type { Tail } from './tail.ts'

/** The most that is held for one follower: however slow it is, it has a place in the log, not a queue. */
const BATCH_EVENTS = 512
const BATCH_BYTES = 4_194_304

export type Source = {
  readonly tail: Tail
  last(): number
  page(after: number, most: { limit: number; bytes: number }, wanted: (stream: string) => boolean): Page
  readonly followers: Set<Follower>
}

export type Follower = {
  /** Something was committed. */
  wake(): void
  /** The store closes. */
  end(): void
}

type Batch = readonly Recorded[] | 'caught-up'

export const follow = (source: Source, after: number, { prefixes, signal }: FollowOptions): AsyncIterator<Batch> => {
  const wanted = (stream: string) => prefixes === undefined || prefixes.some((prefix) => stream.startsWith(prefix))
  let cursor = after
  let caughtUp = false
  let ended = signal.aborted
  let reading: NodeJS.Immediate | undefined
  let waiting: { resolve(result: IteratorResult<Batch>): void; reject(error: unknown): void } | undefined

  const deliver = (value: Batch) => {
    const reader = waiting
    waiting = undefined
    reader?.resolve({ value, done: false })
  }
  const end = () => {
    ended = true
    source.followers.delete(follower)
    signal.removeEventListener('abort', end)
    clearImmediate(reading)
    waiting?.resolve({ value: undefined, done: true })
    waiting = undefined
  }
  /** Synchronous, and called before the appends resolve: who awaits an append finds its followers already told. */
  const wake = () => {
    if (!waiting || reading) return
    while (cursor < source.last()) {
      const live = source.tail.after(cursor, BATCH_EVENTS)
      if (!live) {
        // One page a tick: a long history must not keep the appends, or anything else, waiting.
        reading = setImmediate(readPage)
        return
      }
      cursor += live.length
      const news = prefixes ? live.filter((event) => wanted(event.stream)) : live
      if (news.length > 0) return deliver(news)
    }
    if (caughtUp) return
    caughtUp = true
    deliver('caught-up')
  }
  const readPage = () => {
    reading = undefined
    try {
      const page = source.page(cursor, { limit: BATCH_EVENTS, bytes: BATCH_BYTES }, wanted)
      cursor = page.last
      if (page.events.length > 0) deliver(page.events)
      else wake()
    } catch (error) {
      waiting?.reject(error)
      waiting = undefined
      end()
    }
  }
  const follower: Follower = { wake, end }

  if (!ended) {
    source.followers.add(follower)
    signal.addEventListener('abort', end, { once: true })
  }
  return {
    next: () =>
      new Promise((resolve, reject) => {
        if (ended) return resolve({ value: undefined, done: true })
        if (waiting) return reject(new TypeError('a follower is read by one reader, one batch at a time'))
        waiting = { resolve, reject }
        wake()
      }),
    async return() {
      end()
      return { value: undefined, done: true }
    },
  }
}
