/**
 * The one path of a command: find the node, take the secrets out of the body, ask its driver for plans, let the machine
 * decide, append.
 */

import type { Command } from '../machines/node/command.ts'
import { allowedCommands, type CommandName, commands, isAllowed, planBody } from '../machines/node/commands.ts'
import { type Node, stateOf } from '../machines/node/machine.ts'
import type { EffectName, Plans } from '../machines/node/phase.ts'
import { whyNot } from '../machines/node/refusal.ts'
import type { Meta } from '../machines/recorded.ts'
import type { Ids } from './clock.ts'
import type { Commit } from './commit.ts'
import { type Driver, PlanRefused } from './drivers/driver.ts'
import type { Drivers } from './drivers/registry.ts'
import type { Deadlines } from './effects/deadlines.ts'
import type { Fleet } from './fleet.ts'
import type { Prepare } from './prepare.ts'
import type { Appended } from './store/port.ts'

export type Outcome =
  | ({ readonly kind: 'accepted'; readonly id: string; readonly command: string } & Appended)
  | { readonly kind: 'not-found' }
  | {
      readonly kind: 'wrong-state'
      readonly state: string
      readonly why: string
      readonly allowed: readonly CommandName[]
    }
  | { readonly kind: 'stale'; readonly expected: number; readonly revision: number }
  | { readonly kind: 'unplannable'; readonly field: string; readonly reason: string }

export type Handle = ReturnType<typeof openHandle>

/** What is wrong with the moment, not with the request: thrown inside a decision, answered as a value. */
class Refused extends Error {
  readonly outcome: Outcome
  constructor(outcome: Outcome) {
    super(outcome.kind)
    this.outcome = outcome
  }
}

export type HandleTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly drivers: Drivers
  readonly prepare: Prepare
  readonly ids: Ids
  readonly deadlines: Deadlines
}

export const openHandle = ({ fleet, commit, drivers, prepare, ids, deadlines }: HandleTools) => {
  /**
   * @param body as the command's schema made it
   * @param expected revision that the caller decided on (If-Match)
   * @throws {ClaimRefused} when a name or a MAC belongs to another node
   */
  return async (
    key: string,
    name: CommandName,
    body: object,
    actor: Meta['actor'],
    expected?: number,
  ): Promise<Outcome> => {
    const found = fleet.find(key)
    if (!found) return { kind: 'not-found' }
    const { id } = found
    const command: Command = commands[name]
    const cause = { actor, command: ids.uuid() }
    const check = (node: Node) => {
      if (expected !== undefined && node.revision !== expected) {
        throw new Refused({ kind: 'stale', expected, revision: node.revision })
      }
      if (!isAllowed(node, name)) {
        const allowed = allowedCommands(node)
        throw new Refused({ kind: 'wrong-state', state: stateOf(node), why: whyNot(node, name), allowed })
      }
    }
    try {
      check(found.node)
      const prepared = await prepare(id, found.node, name, body, cause)
      const appended = await commit(id, cause, (node) => {
        check(node)
        const driver = drivers.get(node.facts.driver)
        const plans = driver
          ? plansOf(driver, node, command.effects(prepared, node), planBody(node, name, prepared), deadlines)
          : {}
        return command.propose(prepared, { node, plans, id: ids.uuid })
      })
      if (!appended) throw new Error(`${name} proposed nothing`)
      return { kind: 'accepted', id, command: cause.command, ...appended }
    } catch (error) {
      if (error instanceof Refused) return error.outcome
      if (error instanceof PlanRefused) return { kind: 'unplannable', field: error.field, reason: error.message }
      throw error
    }
  }
}

/** A plan for each phase that the command leads through. @throws {PlanRefused} */
const plansOf = (
  driver: Driver,
  { facts }: Node,
  effects: readonly EffectName[],
  body: PlanAsked,
  deadlines: Deadlines,
): Plans =>
  Object.fromEntries(
    effects.map((effect, place) => [
      effect,
      driver.plan(effect, {
        facts,
        body,
        deadlines,
        agent_is_up: effects[place - 1] === 'burn-in',
        keep_agent: effect === 'burn-in' && effects[place + 1] === 'clean',
      }),
    ]),
  )

type PlanAsked = Readonly<Record<string, unknown>>
