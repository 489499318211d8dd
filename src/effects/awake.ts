/** Watches that a node stays on while something is awaited from it: lost power ends the wait, long before its deadline does. */
import { type Job, StepFailure } from './job.ts'

/** Between two looks at the power of a node that says nothing. */
const LOOK_EVERY_MS = 10_000
/** Firmware updates and memory training switch some nodes off for seconds: only one that is found off each time is off. */
const LOOK_AGAIN_AFTER_MS = 5_000
const LOOKS_OFF = 3

/**
 * Waits with a signal that also aborts when the BMC keeps saying that the node is off; that is recorded as well.
 * @param isQuiet whether nothing has been heard of the node lately: while it talks, its BMC is left alone
 * @throws {StepFailure} `power-lost`
 */
export const whileOn = async <T>(
  job: Job,
  wait: (signal: AbortSignal) => Promise<T>,
  isQuiet = () => true,
): Promise<T> => {
  const off = new AbortController()
  const over = new AbortController()
  const looking = look(job, isQuiet, AbortSignal.any([job.signal, over.signal]), () =>
    off.abort(
      new StepFailure(
        'power-lost',
        'the node lost its power, or somebody switched it off: its BMC says that it is off',
      ),
    ),
  )
  try {
    return await wait(AbortSignal.any([job.signal, off.signal]))
  } finally {
    over.abort()
    await looking
    if (off.signal.aborted) {
      await job.record(({ facts }) =>
        facts.power === 'off' ? [] : [{ type: 'PowerObserved', data: { power: 'off', before: facts.power } }],
      )
    }
  }
}

/** Never rejects: a BMC that does not answer is no reason to give a node up that may well be at work. */
const look = async (job: Job, isQuiet: () => boolean, signal: AbortSignal, onOff: () => void): Promise<void> => {
  for (let offs = 0; offs < LOOKS_OFF; ) {
    await job.clock.sleep(offs > 0 ? LOOK_AGAIN_AFTER_MS : LOOK_EVERY_MS, signal)
    if (signal.aborted) return
    if (!isQuiet()) continue
    const power = await job.bmc.power.state(signal).catch(() => null)
    if (signal.aborted) return
    offs = power === 'off' ? offs + 1 : 0
  }
  onOff()
}
