/** What a step of a plan is given to work with, and what it may answer. */
import type { Node, NodeEvent } from '../../machines/node/machine.ts'
import type { JsonObject, Step } from '../../machines/node/phase.ts'
import type { Bmc } from '../bmc/port.ts'
import type { Clock } from '../clock.ts'
import type { Gap } from './gap.ts'
import type { Services } from './services.ts'

export type Progress = { readonly done: number; readonly total: number; readonly unit: 'bytes' | 'seconds' | 'percent' }

export type Job = {
  readonly id: string
  /** The node as it is now; read it again after every wait. */
  node(): Node
  /** Revision of the request that this work belongs to. */
  readonly attempt: number
  readonly index: number
  /** 1 for the first time that this step is begun; above, the service was restarted in the middle of it. */
  readonly run: number
  readonly step: Step
  readonly bmc: Bmc
  readonly services: Services
  readonly clock: Clock
  /** Aborts when the work is aborted, when its deadline passes, and when the service stops. */
  readonly signal: AbortSignal
  /** Appends to the node's stream; nothing when the attempt is over. */
  record(decide: (node: Node) => readonly NodeEvent[]): Promise<void>
  /** Says in words what the step waits for: shown to operators, and the reason given if the deadline passes. */
  waitFor(what: string): void
  /** Tells time that the node, its BMC or the network takes from time that we take; see gap.ts. */
  readonly gap: Gap
  progress(progress: Progress): void
  /** Resolves with the node once it is as wanted; rejects when the job's signal aborts, or the one given instead. */
  until(wanted: (node: Node) => boolean, ends?: AbortSignal): Promise<Node>
}

/** A step of some interface. @throws {StepFailure} when the node, not the service, is at fault */
export type StepHandler = {
  /**
   * Whether the step may simply be done again when its outcome is not known, because it observes before it acts.
   * A step that is not repeatable fails with `outcome-unknown` when the service was killed in the middle of it.
   */
  readonly repeatable: boolean
  /** Does the work and returns the evidence. */
  run(job: Job): Promise<JsonObject>
}

export type Interface = Readonly<Record<string, StepHandler>>

/** Expected: the step could not be done, and says why in words that an operator can act on. */
export class StepFailure extends Error {
  override readonly name = 'StepFailure'
  readonly code: string
  readonly evidence: JsonObject
  constructor(code: string, reason: string, evidence: JsonObject = {}) {
    super(reason)
    this.code = code
    this.evidence = evidence
  }
}
