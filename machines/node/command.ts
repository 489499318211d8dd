/**
 * A command proposes events; the machine alone decides whether the node has room for them.
 *
 * `effects` names the phases that the command leads through, so that the shell can ask the node's driver for their plans
 * before the events are made; everything here is pure.
 */
import type { z } from 'zod'
import type { EventType, Node, NodeEvent } from './machine.ts'
import type { EffectName, Plans } from './phase.ts'

export type Command<Body extends z.ZodType = z.ZodType> = {
  /** What it asks for, in a sentence, for the API's documentation and the command line. */
  readonly doc: string
  readonly body: Body
  /** The event that the state must have room for. */
  readonly event: EventType
  /** Phases that need a plan, in the order in which they will run. */
  effects(body: z.output<Body>, node: Node): readonly EffectName[]
  propose(body: z.output<Body>, ask: Ask): readonly NodeEvent[]
}

export type Ask = {
  readonly node: Node
  readonly plans: Plans
  /** A fresh UUID. */
  readonly id: () => string
}

/** Keeps the body's type while the table that holds the commands forgets it. */
export const command = <Body extends z.ZodType>(definition: Command<Body>): Command => definition as unknown as Command
