/** A node's history: each event with the state it led to, who caused it, and how long what it ended had taken. */
import { blank, evolve, type Node, type RecordedNodeEvent, stateOf } from '../machines/node/machine.ts'

export type HistoryEntry = {
  readonly revision: number
  readonly position: string
  readonly id: string
  readonly at: string
  readonly type: string
  readonly state: string
  readonly actor: RecordedNodeEvent['meta']['actor']
  readonly command: string | null
  /** How long the step or phase that this event ends had run; null when it ends none. */
  readonly duration_ms: number | null
  readonly data: object
}

export const history = (events: readonly RecordedNodeEvent[]): HistoryEntry[] => {
  let node = blank
  return events.map((event) => {
    const before = node
    node = evolve(before, event, event.at, event.meta.command)
    const { revision, position, id, at, type, meta, data } = event
    const began = beganAt(before, event)
    return {
      revision,
      position,
      id,
      at,
      type,
      state: stateOf(node),
      actor: meta.actor,
      command: meta.command ?? null,
      duration_ms: began === null ? null : Date.parse(at) - Date.parse(began),
      data,
    }
  })
}

const beganAt = (before: Node, { type }: RecordedNodeEvent): string | null => {
  const { work } = before
  if (!work) return null
  if (type === 'StepSucceeded' || type === 'StepFailed') return work.step_started_at
  return /(Succeeded|Failed|Aborted)$/.test(type) ? work.since_at : null
}
