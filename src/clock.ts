/** What would otherwise be global: time and fresh identities, handed in so that a test can say what they are. */
import { randomBytes, randomUUIDv7 } from 'node:crypto'

export type Clock = {
  now(): Date
  /** Resolves after that long, or at once when the signal aborts. */
  sleep(duration_ms: number, signal: AbortSignal): Promise<void>
}

export type Ids = {
  /** A UUID that sorts by time (version 7). */
  uuid(): string
  /** 256 random bits, base64url. */
  secret(): string
}

const SECRET_BYTES = 32

export const systemClock: Clock = {
  now: () => new Date(),
  sleep: (duration_ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const done = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, duration_ms)
      signal.addEventListener('abort', done)
    }),
}

export const randomIds: Ids = {
  uuid: () => randomUUIDv7(),
  secret: () => randomBytes(SECRET_BYTES).toString('base64url'),
}
