/** A log that cannot be written is waited for: what was seen and done meanwhile is not lost for that. */
import type { Logger } from 'pino'
import type { Clock } from '../clock.ts'
import { RevisionConflict, StoreUnavailable } from '../store/port.ts'

/** Between tries to write to a log that cannot be written: doubled from the first to the second. */
export const STORE_RETRY_MS = [250, 15_000] as const

export type WritableTools = {
  /** The node that it is about. */
  readonly id: string
  readonly clock: Clock
  readonly log: Logger
  readonly signal: AbortSignal
  /** Says in words what is waited for. */
  waitFor(what: string): void
}

/** What `write` returns, as soon as the log takes it; null when the signal aborts before. @throws whatever else it throws */
export const whenWritable = async <T>(write: () => Promise<T>, tools: WritableTools): Promise<T | null> => {
  const { id, clock, log, signal, waitFor } = tools
  for (let wait_ms: number = STORE_RETRY_MS[0]; ; wait_ms = Math.min(wait_ms * 2, STORE_RETRY_MS[1])) {
    if (signal.aborted) return null
    try {
      return await write()
    } catch (error) {
      if (!(error instanceof StoreUnavailable || error instanceof RevisionConflict)) throw error
      log.warn({ err: error, node: id, wait_ms }, 'the log cannot be written; the work waits')
      waitFor('the log to be writable again')
      await clock.sleep(wait_ms, signal)
    }
  }
}
