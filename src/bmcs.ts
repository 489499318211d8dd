/** The connection to each node's BMC: made when first needed, made anew when its settings or its credential change. */
import type { Node } from '../machines/node/machine.ts'
import type { Bmc } from './bmc/port.ts'
import type { Drivers } from './drivers/registry.ts'
import type { Vault } from './vault.ts'

type Connection = { readonly bmc: Bmc; readonly settings: object; readonly version: number | undefined }

export const openBmcs = (drivers: Drivers, vault: Vault) => {
  const connections = new Map<string, Connection>()
  return {
    of(id: string, { facts }: Node): Bmc {
      const known = connections.get(id)
      const version = facts.credential?.version
      if (known && known.settings === facts.bmc && known.version === version) return known.bmc
      const driver = drivers.get(facts.driver)
      if (!driver) throw new Error(`driver ${facts.driver} is not installed`)
      const secret = facts.credential ? vault.get(id, facts.credential.name, version)?.value : {}
      const bmc = driver.connect(facts.bmc, secret ?? {})
      connections.set(id, { bmc, settings: facts.bmc, version })
      return bmc
    },
    forget: (id: string): void => void connections.delete(id),
  }
}
