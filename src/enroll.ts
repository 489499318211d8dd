/** Enrolment: a name and MACs are claimed, the BMC's secrets put away, and a stream begun. */
import { z } from 'zod'
import { metadata, nodeName, ports } from '../machines/node/enrolment.ts'
import { jsonObject } from '../machines/node/phase.ts'
import type { Meta } from '../machines/recorded.ts'
import { type ClaimKind, ClaimRefused, type Claims } from './claims.ts'
import type { Ids } from './clock.ts'
import type { Commit } from './commit.ts'
import { PlanRefused } from './drivers/driver.ts'
import type { Drivers } from './drivers/registry.ts'
import { checkDeployInterface, keepBmc } from './prepare.ts'
import type { Vault } from './vault.ts'

export const enrollBody = z.strictObject({
  name: nodeName,
  driver: z.string(),
  bmc: jsonObject
    .default({})
    .describe("the driver's settings: address, user, password, …; secrets never come out again"),
  ports: ports.default([]).describe('MACs that the node boots from, as far as known'),
  deploy_interface: z.string().nullable().default(null),
  metadata: metadata.default({}),
})
export type EnrollBody = z.output<typeof enrollBody>

export type Enroll = ReturnType<typeof openEnroll>

export type EnrollTools = {
  readonly commit: Commit
  readonly claims: Claims
  readonly vault: Vault
  readonly drivers: Drivers
  readonly ids: Ids
}

export const openEnroll = ({ commit, claims, vault, drivers, ids }: EnrollTools) => {
  /** @throws {ClaimRefused} when name or MAC belong to another node, {PlanRefused} naming the setting that is wrong */
  return async (body: EnrollBody, actor: Meta['actor']) => {
    const driver = drivers.get(body.driver)
    if (!driver) throw new PlanRefused('driver', `one of ${[...drivers.keys()].sort().join(', ')}, not ${body.driver}`)
    checkDeployInterface(driver, body.deploy_interface ?? undefined)
    const id = ids.uuid()
    const cause = { actor, command: ids.uuid() }
    const wanted: (readonly [ClaimKind, string])[] = [
      ['name', body.name],
      ...body.ports.map((mac) => ['mac', mac] as const),
    ]
    const claimed = await Promise.allSettled(wanted.map(([kind, value]) => claims.take(kind, value, id, cause)))
    const refused = claimed.find((claim) => claim.status === 'rejected')
    try {
      if (refused) throw refused.reason
      const { bmc, credential } = await keepBmc(vault, driver, id, body.bmc, null)
      const { name, ports, metadata, deploy_interface } = body
      const data = { name, driver: body.driver, bmc, credential, ports, metadata, deploy_interface }
      const appended = await commit(id, cause, () => [{ type: 'NodeEnrolled', data }])
      if (!appended) throw new Error('an enrolment is one event')
      return { id, command: cause.command, ...appended }
    } catch (error) {
      // What was claimed is given back, so that the corrected request does not meet its own first try.
      if (error instanceof ClaimRefused || error instanceof PlanRefused) {
        await Promise.all(
          wanted.map(
            ([kind, value], i) => claimed[i]?.status === 'fulfilled' && claims.release(kind, value, id, cause),
          ),
        )
      }
      throw error
    }
  }
}
