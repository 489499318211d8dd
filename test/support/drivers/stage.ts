/** A driver whose steps do what a test says: see test/support/stage.ts. */
import { z } from 'zod'
import type { Driver } from '../../../src/drivers/driver.ts'
import type { Interface } from '../../../src/effects/job.ts'
import { management } from '../../../src/effects/management.ts'
import { power } from '../../../src/effects/power.ts'
import { sceneOf } from '../stage.ts'

const act = (isRepeatable: { repeatable: boolean }): Interface[string] => ({
  ...isRepeatable,
  run: (job) => sceneOf(job.node().facts.bmc['address']).act(job),
})

const driver: Driver = {
  doc: 'Steps that do what a test says.',
  options: z.strictObject({ address: z.string(), note: z.string().optional() }),
  secrets: z.strictObject({ password: z.string().optional() }),
  connect: (options) => sceneOf((options as { address: string }).address).bmc,
  deploy_interfaces: ['stage'],
  interfaces: { power, management, stage: { act: act({ repeatable: true }), once: act({ repeatable: false }) } },
  plan: (effect, { facts }) => sceneOf(facts.bmc['address']).plan(effect),
}
export default driver
