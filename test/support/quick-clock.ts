/** A clock on which waiting takes no time: whoever sleeps is woken at once, and it is as much later. */
import { once } from 'node:events'
import type { Clock } from '../../src/clock.ts'

export type QuickClock = Clock & {
  /** How often somebody slept. */
  sleeps(): number
}

/** @param onSleep called with the number of each sleep, the first being 1; after 'stop' nobody wakes but to be aborted */
export const quickClock = (onSleep: (sleep: number) => 'stop' | undefined = () => undefined): QuickClock => {
  let now_ms = Date.now()
  let sleeps = 0
  let isStopped = false
  return {
    now: () => new Date(now_ms),
    async sleep(duration_ms, signal) {
      if (signal.aborted) return
      isStopped ||= onSleep(++sleeps) === 'stop'
      await (isStopped ? once(signal, 'abort') : new Promise(setImmediate))
      if (!signal.aborted) now_ms += duration_ms
    },
    sleeps: () => sleeps,
  }
}
