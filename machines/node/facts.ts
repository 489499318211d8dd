/** What is known of a node beside its state: the little that effects and queries need, folded from the same events. */
import type { Deployed } from './deployment.ts'
import type { Discovered, Port } from './discovery.ts'
import type { Failure, JsonObject } from './phase.ts'

/** Names a secret in the vault; the secret itself is never in an event. */
export type CredentialRef = { readonly name: string; readonly version: number }

export type Facts = {
  readonly name: string
  readonly driver: string
  /** The driver's own settings: addresses, ports, cipher suites. No secrets. */
  readonly bmc: JsonObject
  readonly credential: CredentialRef | null
  /** Which deploy interface of the driver a deployment uses when it names none. */
  readonly deploy_interface: string | null
  readonly metadata: Readonly<Record<string, string>>
  readonly ports: readonly Port[]
  readonly enrolled_at: string | null
  readonly bmc_info: JsonObject | null
  /** What the controller last said of the chassis power; null until somebody looked. */
  readonly power: 'on' | 'off' | null
  /** Why the controller cannot be reached, while it cannot. */
  readonly bmc_lost: { readonly reason: string; readonly since: string } | null
  readonly hardware: Discovered | null
  /** Revision of the event that last changed what the node is made of. */
  readonly hardware_changed: number
  /** Revision and time of the last burn-in that passed. */
  readonly burned_in: { readonly revision: number; readonly at: string } | null
  readonly instance: Deployed | null
  readonly failure: (Failure & { readonly at: string }) | null
  readonly maintenance: { readonly reason: string; readonly since: string } | null
}

export const nothing: Facts = {
  name: '',
  driver: '',
  bmc: {},
  credential: null,
  deploy_interface: null,
  metadata: {},
  ports: [],
  enrolled_at: null,
  bmc_info: null,
  power: null,
  bmc_lost: null,
  hardware: null,
  hardware_changed: -1,
  burned_in: null,
  instance: null,
  failure: null,
  maintenance: null,
}

/** Where an event stands, for the facts that remember it. */
export type Place = { readonly at: string; readonly revision: number }

/** The facts one event later. */
export type Fold<Data> = (facts: Facts, data: Data, place: Place) => Facts

/** A phase ended badly: the reason stays until the node moves on. */
export const failed: Fold<Failure> = (facts, { code, reason, step }, { at }) => ({
  ...facts,
  failure: { code, reason, step, at },
})

/** A new attempt starts with a clean slate. */
export const begun: Fold<unknown> = (facts) => (facts.failure ? { ...facts, failure: null } : facts)
