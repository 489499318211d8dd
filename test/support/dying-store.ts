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
      if (last === 'kept') await inner.append(stream, expected, events)
      throw gone()
    },
    async *follow(options): AsyncGenerator<readonly Recorded[] | 'caught-up'> {
      for await (const batch of inner.follow(options)) if (!isDead) yield batch
    },
    appends: () => appends,
    died: death.promise,
    die,
  }
}
