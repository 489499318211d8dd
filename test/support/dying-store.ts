/** A log that is torn away from its writer at a chosen append, as when the process is killed there. */
import { type EventStore, type Recorded, StoreUnavailable } from '../../src/store/port.ts'

/** Whether the append at which it dies is still made durable; the writer never learns of it. */
export type LastAppend = 'kept' | 'lost'

export type DyingStore = EventStore & {
  /** How many appends were tried so far. */
  appends(): number
  readonly died: Promise<void>
  die(): void
}

/** Dies at the append of that number, the first being 1; never for 0. */
export const dyingStore = (inner: EventStore, at: number, last: LastAppend): DyingStore => {
  let appends = 0
  let isDead = false
  /** What the dead process never saw, although it is in the log. */
  const unseen = new Set<string>()
  const death = Promise.withResolvers<void>()
  const die = () => {
    isDead = true
    death.resolve()
  }
  const gone = () => new StoreUnavailable('the process that had this log is dead')
  return {
    ...inner,
    async append(stream, expected, events) {
      if (isDead) throw gone()
      if (++appends !== at) return inner.append(stream, expected, events)
      die()
      for (const { id } of events) unseen.add(id)
      if (last === 'kept') await inner.append(stream, expected, events)
      throw gone()
    },
    async read(stream, options) {
      if (isDead) throw gone()
      return inner.read(stream, options)
    },
    async *follow(options): AsyncGenerator<readonly Recorded[] | 'caught-up'> {
      for await (const batch of inner.follow(options)) {
        const seen = batch === 'caught-up' ? batch : batch.filter(({ id }) => !unseen.has(id))
        if (seen.length > 0) yield seen
      }
    },
    appends: () => appends,
    died: death.promise,
    die,
  }
}
