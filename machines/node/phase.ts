/**
 * What every phase of the lifecycle shares: the words a state may use, the steps of a plan, the shape of a phase file.
 *
 * The machine has no context: it is finite, so a guard may ask only which states the node is in and what the event says
 * in `then`. Whatever else a node remembers is folded beside it, in facts.ts and work.ts (ADR 2).
 */
import { and, not, or, setup, stateIn } from 'xstate'
import { z } from 'zod'
import type { EventType } from './machine.ts'

/** Effects that a busy state may name on entry. The shell looks them up; a machine never runs one. */
export const EFFECTS = ['verify', 'discover', 'burn-in', 'clean', 'deploy', 'undeploy', 'switch-power'] as const
export type EffectName = (typeof EFFECTS)[number]

/** The busy states of the life region; a test holds this list against the tags. */
export const BUSY = ['verifying', 'discovering', 'burning-in', 'cleaning', 'deploying', 'undeploying'] as const

const intent = () => {
  throw new Error('a machine only names its effects; the shell runs them')
}

export const phase = setup({
  types: {
    context: {} as Record<never, never>,
    events: {} as { type: EventType; then?: string | undefined },
    meta: {} as { doc: string },
    tags: {} as 'stable' | 'busy' | 'failed',
  },
  guards: {
    /** May a phase of life start? Not in maintenance, and not while the power is being switched. */
    free: and([stateIn({ maintenance: 'off' }), stateIn({ power: 'settled' })]),
    settled: stateIn({ power: 'settled' }),
    /** May the power be switched? Not while the lifecycle is at work on the node. */
    idle: not(or([...BUSY, 'unknown', 'forgotten'].map((name) => stateIn({ life: name })))),
    known: not(or(['unknown', 'forgotten'].map((name) => stateIn({ life: name })))),
    freeThenBurnIn: and(['free', ({ event }) => event.then === 'burning-in']),
    freeThenClean: and(['free', ({ event }) => event.then === 'cleaning']),
    thenClean: ({ event }) => event.then === 'cleaning',
    thenAvailable: ({ event }) => event.then === 'available',
  },
  actions: {
    ...(Object.fromEntries(EFFECTS.map((name) => [name, intent])) as { [E in EffectName]: typeof intent }),
    /** The facts change, the state does not. */
    record: () => {},
  },
})

/** How deep a JSON value may be nested. */
const MAX_JSON_DEPTH = 64

const isJson = (value: unknown, depth = 0): value is JsonValue => {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return true
  if (typeof value !== 'object') return Number.isFinite(value)
  if (depth === MAX_JSON_DEPTH) return false
  if (Array.isArray(value)) return value.every((item) => isJson(item, depth + 1))
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false
  return Object.values(value).every((item) => isJson(item, depth + 1))
}

/** A predicate and not a recursive schema: zod guards each part of those against cycles, at ten times the cost. */
const json = z.unknown().refine((value) => isJson(value), 'must be JSON') as unknown as z.ZodType<JsonValue>
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue }
export const jsonObject = z.record(z.string(), json)
export type JsonObject = z.infer<typeof jsonObject>

/** One step of a plan: what to do by which interface of the driver, and how long it may take once it has started. */
export const step = z.object({
  interface: z.string().min(1),
  step: z.string().min(1),
  args: jsonObject.default({}),
  deadline_s: z.number().positive(),
})
export type Step = z.infer<typeof step>

/** A step as people, failures and settings write it: `deploy.write-iscsi`. */
export const stepName = ({ interface: face, step }: Pick<Step, 'interface' | 'step'>): string => `${face}.${step}`

/** The most steps one plan may have. */
export const MAX_PLAN_STEPS = 64
export const plan = z.array(step).max(MAX_PLAN_STEPS)

/** The plans of a request: one for each effect that it will lead through. */
export const plans = z.partialRecord(z.enum(EFFECTS), plan)
export type Plans = z.infer<typeof plans>

/** A full document kept in the blob store. */
export const blobRef = z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), bytes: z.int().nonnegative() })

/** Why a phase ended badly: a word for programs, a sentence for people, and the step that it happened in. */
export const failure = z.object({
  code: z.string(),
  reason: z.string(),
  step: z.string().nullable().default(null),
})
export type Failure = z.infer<typeof failure>
