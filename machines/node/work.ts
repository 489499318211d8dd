/**
 * Work: what a busy node is being put through, step by step.
 *
 * A plan was written into the event that asked for the work; here is the place in it. The lifecycle machine knows only
 * that the node is busy; this fold knows with what, since when, how far, and by whose word (ADR 5).
 */
import { z } from 'zod'
import { begun, type Fold, type Place } from './facts.ts'
import { blobRef, type EffectName, type JsonObject, jsonObject, type Plans, type Step, stepName } from './phase.ts'

/** Observable steps of a network boot, in the order in which they should come. */
export const MILESTONES = [
  'dhcp-discover',
  'dhcp-ack',
  'tftp',
  'script',
  'kernel',
  'ramdisk',
  'burn-in-tools',
  'agent',
  'tenant',
] as const

/** How long the step, and the way to it, waited for neither the node nor the network. */
const gap_ms = z.number().nonnegative().default(0)
const at_step = { attempt: z.int().nonnegative(), index: z.int().nonnegative() }

/** Events that move a plan on; accepted when they fit the place in it. */
export const progress = {
  /** `run` counts how often this step was begun: above 1, the service was restarted in the middle of it. */
  StepStarted: z.object({ ...at_step, run: z.int().positive(), interface: z.string(), step: z.string() }),
  StepSucceeded: z.object({ ...at_step, evidence: jsonObject.default({}), gap_ms }),
  StepFailed: z.object({ ...at_step, code: z.string(), reason: z.string(), evidence: jsonObject.default({}), gap_ms }),
  AgentConnected: z.object({
    attempt: z.int(),
    /** Which step's one-time token was used up. */
    index: z.int(),
    session_sha256: z.string(),
    address: z.string(),
    /** What the agent said of the hardware when it came up. */
    document: blobRef,
  }),
  BootObserved: z.object({ attempt: z.int(), kind: z.enum(MILESTONES), detail: z.string().default('') }),
}

/** Events that are true whatever the node is doing; they move nothing. */
export const observations = {
  AgentRefused: z.object({ reason: z.string(), address: z.string(), attempt: z.int().nullable().default(null) }),
  /** A report that belongs to work which is over. */
  LateReportReceived: z.object({ attempt: z.int().nullable(), what: z.string() }),
}

export const events = {
  ...progress,
  ...observations,
  AttemptAborted: z.object({ reason: z.string(), step: z.string().nullable().default(null) }),
  AttemptGivenUp: z.object({ reason: z.string().default('') }),
}

export const facts = {
  AttemptAborted: ((facts, { reason, step }, { at }) => ({
    ...facts,
    failure: { code: 'aborted', reason, step, at },
  })) as Fold<z.infer<typeof events.AttemptAborted>>,
  AttemptGivenUp: begun,
}

export type Request = {
  readonly type: string
  readonly data: { readonly plans: Plans } & JsonObject
  readonly revision: number
  readonly at: string
  /** The command that asked, as its events name it. */
  readonly command: string | undefined
}

export type Work = {
  readonly effect: EffectName
  /** Revision of the event that made the node busy with this: identity of the attempt at this effect. */
  readonly since: number
  readonly since_at: string
  /** The event that asked; its revision is the attempt, through all the phases that it leads through. */
  readonly request: Request
  readonly plan: readonly Step[]
  /** Index of the step that is next or running. */
  readonly cursor: number
  /** How often the step at the cursor was begun; 0 when it was not yet. */
  readonly run: number
  /** When the step at the cursor was first begun: its deadline counts from here. */
  readonly step_started_at: string | null
  /** Evidence of the steps that are done, by index. */
  readonly results: readonly JsonObject[]
  readonly boot: readonly { readonly kind: (typeof MILESTONES)[number]; readonly at: string; readonly detail: string }[]
  readonly agent: {
    readonly index: number
    readonly session_sha256: string
    readonly address: string
    readonly document: z.infer<typeof blobRef>
    readonly at: string
  } | null
}

/** The step that is next or running, by its name; null when none is left, or nothing is at work. */
export const currentStep = (work: Work | null): string | null => {
  const step = work?.plan[work.cursor]
  return step ? stepName(step) : null
}

/** The most boot milestones one attempt keeps. */
export const MAX_MILESTONES = 64

export const begin = (effect: EffectName, request: Request, place: Place, before: Work | null): Work => ({
  effect,
  since: place.revision,
  since_at: place.at,
  request,
  plan: request.data.plans[effect] ?? [],
  cursor: 0,
  run: 0,
  step_started_at: null,
  results: [],
  // A later phase of the same request finds the agent of the earlier one still there.
  boot: before?.request.revision === request.revision ? before.boot : [],
  agent: before?.request.revision === request.revision ? before.agent : null,
})

type Progress = {
  [T in keyof typeof progress]: { type: T; data: z.infer<(typeof progress)[T]> }
}[keyof typeof progress]

/** The work one event later, or null when the event does not fit the place in the plan. */
export const advance = (work: Work, event: Progress, at: string): Work | null => {
  if (event.data.attempt !== work.request.revision) return null
  switch (event.type) {
    case 'StepStarted':
      if (event.data.index !== work.cursor || event.data.run !== work.run + 1 || work.cursor >= work.plan.length) {
        return null
      }
      return { ...work, run: event.data.run, step_started_at: work.step_started_at ?? at }
    case 'StepSucceeded':
      if (event.data.index !== work.cursor || work.run === 0) return null
      return {
        ...work,
        cursor: work.cursor + 1,
        run: 0,
        step_started_at: null,
        results: [...work.results, event.data.evidence],
      }
    case 'StepFailed':
      return event.data.index === work.cursor && work.run > 0 ? work : null
    case 'AgentConnected': {
      const { index, session_sha256, address, document } = event.data
      return { ...work, agent: { index, session_sha256, address, document, at } }
    }
    case 'BootObserved':
      if (work.boot.length >= MAX_MILESTONES) return null
      return { ...work, boot: [...work.boot, { kind: event.data.kind, at, detail: event.data.detail }] }
  }
}
