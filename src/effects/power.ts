/** Power steps: "be off", "be on", never "toggle". Each looks first, asks if needed, and then looks until it is so. */
import type { PowerState } from '../bmc/port.ts'
import { type Interface, type Job, StepFailure } from './job.ts'
import { patiently } from './patience.ts'

/** Between two looks at the chassis power after it was asked to change. */
const LOOK_EVERY_MS = 300
/** A BMC that accepted and did nothing is asked again after this long. */
const ASK_AGAIN_S = 30
/** How long an operating system may take to shut down. */
const DEFAULT_SOFT_OFF_GRACE_S = 120

export const power: Interface = {
  read: {
    repeatable: true,
    run: async (job) => ({ power: await observe(job) }),
  },
  off: { repeatable: true, run: (job) => be('off', job) },
  on: { repeatable: true, run: (job) => be('on', job) },
  /** Asks the operating system; `args.then: 'off'` switches off when it takes longer than `args.grace_s`. */
  'soft-off': {
    repeatable: true,
    async run(job) {
      if ((await observe(job)) === 'off') return { power: 'off', asked: 0 }
      await patiently(job, 'the BMC to take the request to shut down', () => job.bmc.power.softOff(job.signal))
      const { grace_s, then } = job.step.args
      const patience_s = typeof grace_s === 'number' ? grace_s : DEFAULT_SOFT_OFF_GRACE_S
      const until_ms = job.clock.now().getTime() + patience_s * 1000
      job.waitFor('the operating system to shut down')
      while (job.clock.now().getTime() < until_ms) {
        if ((await observe(job)) === 'off') return { power: 'off', asked: 1 }
        await lookAgainLater(job)
      }
      if (then === 'off') return { ...(await be('off', job)), soft: false }
      throw new StepFailure('ignored', `the operating system did not shut down within ${patience_s} s of being asked`)
    },
  },
  /** Cannot be observed and cannot be repeated: a crash in the middle of it leaves its outcome unknown. */
  reset: {
    repeatable: false,
    async run(job) {
      if ((await observe(job)) === 'off') throw new StepFailure('refused', 'the node is off: power it on instead')
      await job.bmc.power.reset(job.signal)
      return { power: await observe(job) }
    },
  },
}

const be = async (target: PowerState, job: Job) => {
  let asked = 0
  let ask_at_ms = 0
  for (;;) {
    if ((await observe(job)) === target) return { power: target, asked }
    if (job.clock.now().getTime() >= ask_at_ms) {
      await patiently(job, `the BMC to take "power ${target}"`, () => job.bmc.power.set(target, job.signal))
      asked++
      ask_at_ms = job.clock.now().getTime() + ASK_AGAIN_S * 1000
      job.waitFor(
        `the chassis to be ${target}: the BMC accepted "power ${target}" ${asked} time(s) and reports otherwise`,
      )
      if ((await observe(job)) === target) return { power: target, asked }
    }
    await lookAgainLater(job)
  }
}

const lookAgainLater = async (job: Job) => {
  job.gap.notYet()
  await job.gap.pause(() => job.clock.sleep(LOOK_EVERY_MS, job.signal))
  job.signal.throwIfAborted()
}

/** Reads the chassis power, and records it when it is not what the log says. */
const observe = async (job: Job): Promise<PowerState> => {
  const state = await patiently(job, 'the BMC to say whether the chassis is on', () => job.bmc.power.state(job.signal))
  if (job.node().facts.power !== state) {
    await job.record(({ facts }) =>
      facts.power === state ? [] : [{ type: 'PowerObserved', data: { power: state, before: facts.power } }],
    )
  }
  return state
}
