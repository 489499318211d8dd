/** Inspection: the minimum that the log keeps of what the ramdisk found; MACs become ports, if nobody else has them. */
import type { JsonObject } from '../../machines/node/phase.ts'
import { ClaimRefused } from '../claims.ts'
import { inventoryOf } from './agent.ts'
import { type Interface, StepFailure } from './job.ts'
import { whenWritable } from './writable.ts'

export const inspect: Interface = {
  collect: {
    repeatable: true,
    async run(job) {
      const { services, id } = job
      const { nics, disks, tools: _, ...found } = await inventoryOf(job)
      const cause = { actor: { kind: 'effect', name: 'discover' } } as const
      try {
        const take = () => Promise.all(nics.map(({ mac }) => services.claims.take('mac', mac, id, cause)))
        await whenWritable(take, { id, clock: job.clock, log: services.log, signal: job.signal, waitFor: job.waitFor })
        job.signal.throwIfAborted()
      } catch (error) {
        if (error instanceof ClaimRefused) throw new StepFailure('mac-conflict', error.message)
        throw error
      }
      const hardware = {
        ...found,
        disks: disks.map(({ name, bytes, rotational, serial, model }) => ({ name, bytes, rotational, serial, model })),
        nics: nics.map(({ mac, name, driver, carrier }) => ({ mac, name, driver, carrier })),
        document: { ...job.node().work?.agent?.document } as JsonObject,
      }
      return { hardware }
    },
  },
}
