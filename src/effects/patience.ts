/** A BMC that does not answer is asked again until the step's deadline; one that says no is not. */
import { BmcError } from '../bmc/port.ts'
import type { Job } from './job.ts'

const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 10_000

export const patiently = async <Answer>(job: Job, what: string, ask: () => Promise<Answer>): Promise<Answer> => {
  for (let wait_ms = FIRST_WAIT_MS; ; wait_ms = Math.min(wait_ms * 2, LONGEST_WAIT_MS)) {
    try {
      return await job.gap.away(ask)
    } catch (error) {
      job.signal.throwIfAborted()
      if (!(error instanceof BmcError) || error.code !== 'no-answer') throw error
      job.waitFor(`${what} (${error.message})`)
      await job.gap.away(() => job.clock.sleep(wait_ms, job.signal))
      job.signal.throwIfAborted()
    }
  }
}
