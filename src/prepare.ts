/**
 * What a command needs from the world before it can be an event: names and MACs are claimed, secrets go to the vault and
 * leave their names behind, settings are checked against the driver that will use them.
 */
import { z } from 'zod'
import type { CommandName } from '../machines/node/commands.ts'
import type { CredentialRef } from '../machines/node/facts.ts'
import type { Node } from '../machines/node/machine.ts'
import type { JsonObject } from '../machines/node/phase.ts'
import type { Claims } from './claims.ts'
import type { Cause } from './commit.ts'
import { type Driver, PlanRefused } from './drivers/driver.ts'
import type { Drivers } from './drivers/registry.ts'
import type { Vault } from './vault.ts'

export type Prepare = ReturnType<typeof openPrepare>

/** Names of a node's secrets in the vault. */
export const BMC_SECRET = 'bmc'
export const CONFIG_DRIVE_SECRET = 'config-drive'

export type PrepareTools = {
  readonly claims: Claims
  readonly vault: Vault
  readonly drivers: Drivers
  /** @throws {PlanRefused} when no node could ever be deployed from there */
  checkImage(image: { url: string }): void
}

type Body = Record<string, unknown>

export const openPrepare = ({ claims, vault, drivers, checkImage }: PrepareTools) => {
  const driverOf = (node: Node): Driver => {
    const driver = drivers.get(node.facts.driver)
    if (!driver) throw new PlanRefused('driver', `driver ${node.facts.driver} is not installed any more`)
    return driver
  }

  const steps: Partial<Record<CommandName, (id: string, node: Node, body: Body, cause: Cause) => Promise<Body>>> = {
    async rename(id, _, body, cause) {
      await claims.take('name', String(body['name']), id, cause)
      return body
    },
    async update(id, node, body, cause) {
      for (const mac of (body['ports'] as string[] | undefined) ?? []) await claims.take('mac', mac, id, cause)
      const driver = driverOf(node)
      checkDeployInterface(driver, body['deploy_interface'])
      if (!body['bmc']) return body
      const merged = { ...node.facts.bmc, ...(body['bmc'] as JsonObject) }
      return { ...body, ...(await keepBmc(vault, driver, id, merged, node.facts.credential)) }
    },
    async deploy(id, node, body) {
      const driver = driverOf(node)
      checkDeployInterface(driver, body['deploy_interface'])
      checkImage(body['image'] as { url: string })
      const chosen = body['deploy_interface'] ?? node.facts.deploy_interface ?? driver.deploy_interfaces[0]
      const { user_data, ...open } = (body['config_drive'] ?? {}) as { user_data?: string } // null: no config drive at all
      const prepared = { ...body, deploy_interface: chosen }
      if (user_data === undefined) return prepared
      // User data carries keys and passwords: the log only says that there was some, and which.
      const version = vault.put(id, CONFIG_DRIVE_SECRET, { user_data })
      return { ...prepared, config_drive: open, config_drive_secret: { name: CONFIG_DRIVE_SECRET, version } }
    },
  }

  return async (id: string, node: Node, name: CommandName, body: object, cause: Cause): Promise<object> => {
    const taken = OURS.find((field) => field in body)
    if (taken) throw new PlanRefused(taken, 'is set by the service: give the secret itself, it is put away')
    return (await steps[name]?.(id, node, body as Body, cause)) ?? body
  }
}

/** Fields of events that name secrets: never taken from a caller. */
const OURS = ['credential', 'config_drive_secret']

export const checkDeployInterface = (driver: Driver, name: unknown): void => {
  if (typeof name !== 'string' || driver.deploy_interfaces.includes(name)) return
  throw new PlanRefused(
    'deploy_interface',
    `one of ${driver.deploy_interfaces.join(', ')} for this driver, not ${name}`,
  )
}

/** Settings as the driver's schema has them, and its secrets put away. @throws {PlanRefused} naming the setting at fault */
export const keepBmc = async (
  vault: Vault,
  driver: Driver,
  id: string,
  given: Readonly<Record<string, unknown>>,
  before: CredentialRef | null,
): Promise<{ bmc: JsonObject; credential: CredentialRef | null }> => {
  const secretNames = Object.keys(driver.secrets.shape)
  const entries = Object.entries(given)
  const secrets = Object.fromEntries(entries.filter(([key]) => secretNames.includes(key)))
  const open = Object.fromEntries(entries.filter(([key]) => !secretNames.includes(key)))
  const bmc = parsed(driver.options, open) as JsonObject
  if (Object.keys(secrets).length === 0 && before) return { bmc, credential: before }
  const checked = parsed(driver.secrets, secrets)
  if (Object.keys(checked).length === 0) return { bmc, credential: null }
  return { bmc, credential: { name: BMC_SECRET, version: vault.put(id, BMC_SECRET, checked as JsonObject) } }
}

const parsed = (schema: z.ZodObject, value: object): Record<string, unknown> => {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new PlanRefused(['bmc', ...(issue?.path ?? [])].join('.'), issue?.message ?? z.prettifyError(result.error))
}
