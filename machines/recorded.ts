/** An event as the log keeps it: who caused it, when, and where it stands. */
import { z } from 'zod'

/** Who or what caused an event. `operator`: a caller of the API; `effect`: the service's own work; the rest: what it saw. */
export const ACTOR_KINDS = ['operator', 'effect', 'agent', 'network', 'tenant', 'poll'] as const

export const meta = z.object({
  actor: z.object({ kind: z.enum(ACTOR_KINDS), name: z.string() }),
  /** The command that led to the event, the same for everything that follows from it. */
  command: z.string().optional(),
  /** Version of the lifecycle that decided it. */
  machine: z.int().default(1),
})
export type Meta = z.infer<typeof meta>

export type Recorded<Event> = Event & {
  readonly id: string
  readonly stream: string
  readonly revision: number
  readonly position: string
  /** ISO 8601, UTC. */
  readonly at: string
  readonly meta: Meta
}
