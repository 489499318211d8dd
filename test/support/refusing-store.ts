/** A log that takes nothing while it is told to, as on a full disk. */
import { type EventStore, StoreUnavailable } from '../../src/store/port.ts'

export type RefusingStore = EventStore & {
  refuse(): void
  accept(): void
  /** Resolves at the first append that was refused. */
  readonly refused: Promise<void>
}

export const refusingStore = (inner: EventStore): RefusingStore => {
  let isRefusing = false
  const refused = Promise.withResolvers<void>()
  return {
    ...inner,
    async append(...asked) {
      if (!isRefusing) return inner.append(...asked)
      refused.resolve()
      throw new StoreUnavailable('cannot write the log: no space left on device')
    },
    refuse: () => {
      isRefusing = true
    },
    accept: () => {
      isRefusing = false
    },
    refused: refused.promise,
  }
}
