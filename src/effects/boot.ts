/** Boot steps: wait for the ramdisk, wait for the tenant. */
import type { JsonObject } from '../../machines/node/phase.ts'
import type { Work } from '../../machines/node/work.ts'
import { whileOn } from './awake.ts'
import { type Interface, type Job, StepFailure } from './job.ts'
import { patiently } from './patience.ts'

/** Between two looks at the power of a node that is to stay on. */
const LOOK_EVERY_MS = 2_000

export const boot: Interface = {
  /** The ramdisk is up when its agent has said hello with this step's token. */
  agent: {
    repeatable: true,
    async run(job) {
      job.waitFor(next(job.node().work))
      const unwatch = job.services.watch(job.id, ({ work }) => job.waitFor(next(work)))
      try {
        const { work } = await whileOn(job, (signal) =>
          job.until(({ work }) => work?.agent?.index === job.index, signal),
        )
        return { address: work?.agent?.address ?? '', document: { ...work?.agent?.document } as JsonObject }
      } finally {
        unwatch()
      }
    },
  },
  /** The node runs its image: it phoned home, or it stayed on for long enough, as the request says. */
  tenant: {
    repeatable: true,
    run: (job) => {
      const rule = job.step.args['rule']
      return rule === 'stays-on' ? staysOn(job, Number(job.step.args['settle_s'])) : phonesHome(job)
    },
  },
}

/** What should come next in the story of a boot, in words. */
const next = (work: Work | null): string => {
  const last = work?.boot.at(-1)
  switch (last?.kind) {
    case undefined:
      return 'the node to ask for an address (DHCP): nothing has been heard of it since it was switched on'
    case 'dhcp-discover':
      return 'the node to take the address that it was offered (DHCP)'
    case 'dhcp-ack':
      return 'the node to load its boot program or its boot script: it has an address'
    case 'tftp':
      return 'the boot program that was loaded by TFTP to ask for its script'
    case 'script':
      return 'the node to load the kernel: it has its boot script'
    case 'kernel':
      return 'the node to load the ramdisk: it has the kernel'
    default:
      return 'the ramdisk to start and its agent to say hello'
  }
}

const phonesHome = async (job: Job) => {
  job.waitFor('the image to phone home')
  const { work } = await whileOn(job, (signal) =>
    job.until(({ work }) => work?.boot.some(({ kind }) => kind === 'tenant') ?? false, signal),
  )
  return { observed: work?.boot.findLast(({ kind }) => kind === 'tenant')?.detail ?? '' }
}

const staysOn = async (job: Job, settle_s: number) => {
  const started = job.node().work?.step_started_at ?? job.clock.now().toISOString()
  const end_ms = Date.parse(started) + settle_s * 1000
  job.waitFor(`the node to stay on for ${settle_s} s without asking for a network boot`)
  for (;;) {
    const asked = job.node().work?.boot.find(({ kind, at }) => kind === 'script' && at > started)
    if (asked)
      throw new StepFailure('not-booted', `the node asked for a network boot at ${asked.at}: its disk did not boot`)
    if (
      (await patiently(job, 'the BMC to say whether the node is on', () => job.bmc.power.state(job.signal))) === 'off'
    ) {
      throw new StepFailure('not-booted', 'the node switched itself off instead of booting its disk')
    }
    if (job.clock.now().getTime() >= end_ms) return { observed: `it stayed on for ${settle_s} s` }
    const left_ms = Math.max(1, end_ms - job.clock.now().getTime())
    await job.gap.away(() => job.clock.sleep(Math.min(LOOK_EVERY_MS, left_ms), job.signal))
    job.signal.throwIfAborted()
  }
}
