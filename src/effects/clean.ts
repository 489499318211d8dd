/** Cleaning steps: every disk is wiped, one after the other, and the log says what was done to which serial number. */
import type { JsonObject } from '../../machines/node/phase.ts'
import { type AgentDisk, inventoryOf, order } from './agent.ts'
import { type Interface, type Job, StepFailure } from './job.ts'

export const clean: Interface = {
  /** Partition tables, signatures, both ends of each disk. */
  wipe: {
    repeatable: true,
    run: (job) => eachDisk(job, (disk) => order(job, 'wipe', { args: which(disk), name: `wipe.${disk.name}` })),
  },
  /** Every byte, by the best way that the disk has. */
  erase: {
    repeatable: true,
    run: (job) =>
      eachDisk(job, (disk) =>
        order(job, 'erase', { args: { ...which(disk), method: 'auto' }, name: `erase.${disk.name}` }),
      ),
  },
}

const which = ({ name, serial }: AgentDisk) => ({ disk: name, serial })

const eachDisk = async (job: Job, work: (disk: AgentDisk) => Promise<{ body: JsonObject }>) => {
  const { disks } = await inventoryOf(job)
  if (disks.length === 0) throw new StepFailure('no-disk', 'the ramdisk sees no disk: nothing could be cleaned')
  const done: JsonObject[] = []
  for (const disk of disks) {
    const { body } = await work(disk)
    done.push({ ...body, name: disk.name, serial: disk.serial, model: disk.model })
  }
  return { disks: done }
}
