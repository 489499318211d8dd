/** Management steps: who the BMC is, and which device the node boots next. */
import type { JsonObject } from '../../machines/node/phase.ts'
import { BOOT_DEVICES, type BootDevice } from '../bmc/port.ts'
import { type Interface, type Job, StepFailure } from './job.ts'
import { patiently } from './patience.ts'

/** How often a boot device is set before a BMC that keeps saying otherwise is given up on. */
const MAX_SETS = 3
const READ_BACK_AFTER_MS = 200

export const management: Interface = {
  info: {
    repeatable: true,
    async run(job) {
      const info = await patiently(job, 'the BMC to answer', () => job.bmc.management.info(job.signal))
      return { bmc: { ...info } as JsonObject }
    },
  },
  'boot-device': {
    repeatable: true,
    async run(job) {
      const device = BOOT_DEVICES.find((known) => known === job.step.args['device'])
      if (!device) throw new StepFailure('invalid', `args.device must be one of ${BOOT_DEVICES.join(', ')}`)
      return setBootDevice(device, job)
    },
  },
}

const setBootDevice = async (device: BootDevice, job: Job) => {
  const { hardware, bmc } = job.node().facts
  const firmware = hardware?.firmware ?? (bmc['firmware'] === 'bios' ? 'bios' : 'uefi')
  let read: BootDevice = 'none'
  for (let sets = 1; sets <= MAX_SETS; sets++) {
    await patiently(job, `the BMC to take boot device ${device}`, () =>
      job.bmc.management.setBootDevice(device, { persistent: false, firmware }, job.signal),
    )
    read = await patiently(job, 'the BMC to say which device boots next', () =>
      job.bmc.management.bootDevice(job.signal),
    )
    if (read === device || (isOwnOrder(device) && isOwnOrder(read))) return { device, read_back: read, sets }
    await job.clock.sleep(READ_BACK_AFTER_MS * sets, job.signal)
    job.signal.throwIfAborted()
  }
  throw new StepFailure(
    'not-observed',
    `the BMC accepted boot device ${device} ${MAX_SETS} times and still reports ${read}`,
    { device, read_back: read },
  )
}

/** Some BMCs do not tell "disk" from "no override"; either way the node boots from its disk. */
const isOwnOrder = (device: BootDevice) => device === 'disk' || device === 'none'
