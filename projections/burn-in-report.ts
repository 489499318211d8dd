/** What the burn-ins of a node found: each attempt, each step with its evidence, and the verdict. */
import { blank, evolve, type Node, type RecordedNodeEvent } from '../machines/node/machine.ts'
import { type JsonObject, stepName } from '../machines/node/phase.ts'

type StepReport = {
  readonly step: string
  readonly args: JsonObject
  readonly result: 'waiting' | 'running' | 'passed' | 'failed'
  readonly started_at: string | null
  readonly ended_at: string | null
  readonly reason: string | null
  readonly evidence: JsonObject
}

export type BurnInReport = {
  readonly attempt: number
  readonly requested_at: string
  readonly requested_by: string
  readonly result: 'running' | 'passed' | 'failed' | 'aborted'
  readonly reason: string | null
  readonly ended_at: string | null
  readonly steps: readonly StepReport[]
}

/** Newest attempt last. */
export const burnInReports = (events: readonly RecordedNodeEvent[]): BurnInReport[] => {
  let node = blank
  const reports: BurnInReport[] = []
  for (const event of events) {
    const before = node
    node = evolve(before, event, event.at, event.meta.command)
    const begins = node.work?.effect === 'burn-in' && before.work?.since !== node.work.since
    if (begins) reports.push(opened(node, event))
    else if (before.work?.effect === 'burn-in') {
      const last = reports.pop()
      if (last) reports.push(told(last, before, event))
    }
  }
  return reports
}

const opened = ({ work }: Node, event: RecordedNodeEvent): BurnInReport => ({
  attempt: work?.request.revision ?? event.revision,
  requested_at: event.at,
  requested_by: event.meta.actor.name,
  result: 'running',
  reason: null,
  ended_at: null,
  steps: (work?.plan ?? []).map((planned) => ({
    step: stepName(planned),
    args: planned.args,
    result: 'waiting',
    started_at: null,
    ended_at: null,
    reason: null,
    evidence: {},
  })),
})

const told = (report: BurnInReport, before: Node, event: RecordedNodeEvent): BurnInReport => {
  const step = (change: Partial<StepReport>): BurnInReport => ({
    ...report,
    steps: report.steps.map((old, index) => (index === before.work?.cursor ? { ...old, ...change } : old)),
  })
  switch (event.type) {
    case 'StepStarted':
      return step({ result: 'running', started_at: before.work?.step_started_at ?? event.at })
    case 'StepSucceeded':
      return step({ result: 'passed', ended_at: event.at, evidence: event.data.evidence })
    case 'StepFailed':
      return step({ result: 'failed', ended_at: event.at, reason: event.data.reason, evidence: event.data.evidence })
    case 'BurnInSucceeded':
      return { ...report, result: 'passed', ended_at: event.at }
    case 'BurnInFailed':
      return { ...report, result: 'failed', ended_at: event.at, reason: event.data.reason }
    case 'AttemptAborted':
      return { ...report, result: 'aborted', ended_at: event.at, reason: event.data.reason }
    default:
      return report
  }
}
