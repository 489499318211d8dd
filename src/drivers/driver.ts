/** A driver: how to speak to a BMC, which interfaces work on the node, and the plans that they make together. */
import type { z } from 'zod'
import type { Facts } from '../../machines/node/facts.ts'
import type { EffectName, Step } from '../../machines/node/phase.ts'
import type { Bmc } from '../bmc/port.ts'
import type { Deadlines } from '../effects/deadlines.ts'
import type { Interface } from '../effects/job.ts'

/** What a plan may depend on. */
export type PlanAsk = {
  readonly facts: Facts
  /** The command's body, as its schema made it. */
  readonly body: Readonly<Record<string, unknown>>
  /** How long each kind of step may take here. */
  readonly deadlines: Deadlines
  /** An earlier phase of the same request leaves the ramdisk running. */
  readonly agent_is_up: boolean
  /** A later phase of the same request wants to find the ramdisk running. */
  readonly keep_agent: boolean
}

export type Driver = {
  /** A sentence for whoever chooses one. */
  readonly doc: string
  /** The settings of a node's BMC, without its secrets: an object schema. */
  readonly options: z.ZodObject
  /** The secret settings: they go to the vault and never come out of the API. */
  readonly secrets: z.ZodObject
  /** Opens nothing yet: the first call does. */
  connect(options: unknown, secrets: unknown): Bmc
  /** Names a deployment may use; the first is the default. */
  readonly deploy_interfaces: readonly [string, ...string[]]
  readonly interfaces: Readonly<Record<string, Interface>>
  /** @throws {PlanRefused} when the node lacks what the plan needs */
  plan(effect: EffectName, ask: PlanAsk): Step[]
}

/** The plan cannot be made: the request is answered with the reason, and nothing is recorded. */
export class PlanRefused extends Error {
  override readonly name = 'PlanRefused'
  /** Which part of the request or of the node's settings is at fault. */
  readonly field: string
  constructor(field: string, reason: string) {
    super(reason)
    this.field = field
  }
}
