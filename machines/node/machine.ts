/**
 * The life of one physical node, as data.
 *
 * A node's state is the fold of the events recorded about it: nothing here reads a clock, a socket or a file.
 * Each phase file holds its own events and states; this file joins them, and `evolve` is the only way from one event
 * to the next: the machine decides where the node is, facts.ts and work.ts remember the rest.
 */
import { initialTransition, type SnapshotFrom, transition } from 'xstate'
import type { z } from 'zod'
import type { Recorded } from '../recorded.ts'
import * as burnIn from './burn-in.ts'
import * as cleaning from './cleaning.ts'
import * as deployment from './deployment.ts'
import * as discovery from './discovery.ts'
import * as enrolment from './enrolment.ts'
import { type Facts, type Fold, nothing, type Place } from './facts.ts'
import * as maintenance from './maintenance.ts'
import { EFFECTS, type EffectName, phase } from './phase.ts'
import * as power from './power.ts'
import * as work from './work.ts'

/** Raised when a change of the lifecycle would decide differently about a log that exists. */
export const MACHINE_VERSION = 1

export const events = {
  ...enrolment.events,
  ...discovery.events,
  ...burnIn.events,
  ...cleaning.events,
  ...deployment.events,
  ...power.events,
  ...maintenance.events,
  ...work.events,
}
export type EventType = keyof typeof events
export type EventData<T extends EventType> = z.infer<(typeof events)[T]>
/** An event as decided, before it is recorded. */
export type NodeEvent = { [T in EventType]: { type: T; data: EventData<T> } }[EventType]
export type RecordedNodeEvent = Recorded<NodeEvent>

const folds = {
  ...enrolment.facts,
  ...discovery.facts,
  ...burnIn.facts,
  ...cleaning.facts,
  ...deployment.facts,
  ...power.facts,
  ...maintenance.facts,
  ...work.facts,
} as Partial<Record<EventType, Fold<unknown>>>

export const machine = phase.createMachine({
  id: 'node',
  type: 'parallel',
  context: {},
  states: {
    life: {
      initial: 'unknown',
      states: {
        ...enrolment.states,
        ...discovery.states,
        ...burnIn.states,
        ...cleaning.states,
        ...deployment.states,
      },
    },
    power: { initial: 'settled', states: power.states },
    maintenance: { initial: 'off', states: maintenance.states },
  },
})

/** The states of life by name, as the machine has them. */
export const lifeStates = machine.root.states['life']?.states ?? {}

export type Life = SnapshotFrom<typeof machine>
export type LifeState = Life['value']['life']

/** A node as its events tell it. */
export type Node = {
  readonly life: Life
  readonly revision: number
  /** When the node came into the life state that it is in, and by which event. */
  readonly entered: { readonly at: string; readonly revision: number }
  readonly facts: Facts
  readonly work: work.Work | null
  /** The last thing that was asked, for `retry`. */
  readonly asked: work.Request | null
}

/** An event that the current state has no word for: a bug in the writer, or a log from another program. */
export class UnexpectedEvent extends Error {
  override readonly name = 'UnexpectedEvent'
  constructor(node: Node, event: NodeEvent) {
    super(`a node that is ${stateOf(node)} cannot record ${event.type} after revision ${node.revision}`)
  }
}

export const blank: Node = {
  life: initialTransition(machine)[0],
  revision: -1,
  entered: { at: '', revision: -1 },
  facts: nothing,
  work: null,
  asked: null,
}

export const stateOf = (node: Node): LifeState => node.life.value.life
export const isBusy = (node: Node): boolean => node.work !== null

/** The node one event later; `command` names what led to it. @throws {UnexpectedEvent} rather than skip an event, so that a replay never lies. */
export const evolve = (node: Node, event: NodeEvent, at: string, command?: string): Node => {
  const revision = node.revision + 1
  if (event.type in work.progress) {
    const next = node.work && work.advance(node.work, event as Parameters<typeof work.advance>[1], at)
    if (!next) throw new UnexpectedEvent(node, event)
    return { ...node, revision, work: next }
  }
  if (isObservation(event)) {
    if (!isKnown(node)) throw new UnexpectedEvent(node, event)
    return { ...node, revision, facts: remember(node, event, revision, at) }
  }
  const move = moveFrom(node.life, event)
  if (!move || isPremature(node, event)) throw new UnexpectedEvent(node, event)
  const request = 'plans' in event.data ? ({ ...event, revision, at, command } as work.Request) : node.work?.request
  return {
    life: move.life,
    revision,
    entered: move.life.value.life === stateOf(node) ? node.entered : { at, revision },
    facts: remember(node, event, revision, at),
    asked: request && request.type !== 'PowerRequested' ? request : node.asked,
    work: nextWork(node, move, request, { revision, at }),
  }
}

const nextWork = (node: Node, { effect, busy }: Move, request: work.Request | undefined, place: Place) => {
  if (effect && request) return work.begin(effect, request, place, node.work)
  return busy ? node.work : null
}

/** Whether the node's lifecycle has room for an event of this kind now. `then` is what its guards may ask for. */
export const accepts = (node: Node, type: EventType, then?: string): boolean =>
  moveFrom(node.life, { type, data: { then } }) !== null

const observations: ReadonlySet<string> = new Set([
  ...Object.keys(work.observations),
  'PowerObserved',
  'BmcLost',
  'BmcRegained',
])
const isObservation = (event: NodeEvent) => observations.has(event.type)
const isKnown = (node: Node) => !['unknown', 'forgotten'].includes(stateOf(node))

/** A phase cannot have succeeded while steps of its plan are left. */
const isPremature = ({ work }: Node, { type }: NodeEvent) =>
  type.endsWith('Succeeded') && work !== null && work.cursor < work.plan.length

const remember = (node: Node, event: NodeEvent, revision: number, at: string): Facts => {
  const facts = folds[event.type]?.(node.facts, event.data, { at, revision }) ?? node.facts
  const isOther = facts.failure !== node.facts.failure && stateOf(node).endsWith('-failed') && isOfPower(node, event)
  return isOther ? { ...facts, failure: node.facts.failure } : facts
}

/** Whether an event is about switching the power: that neither hides nor heals what failed in the life. */
const isOfPower = ({ work }: Node, { type }: NodeEvent) =>
  type in power.events || (type === 'AttemptAborted' && work?.effect === 'switch-power')

type Move = { readonly life: Life; readonly effect: EffectName | null; readonly busy: boolean }

/**
 * The machine is finite, so each of its moves is worked out once: a transition costs some 50 µs, a look-up none.
 * Snapshots are shared by value, which makes them the keys of the table.
 */
const lives = new Map<string, Life>()
const moves = new Map<Life, Map<string, Move | null>>()

const moveFrom = (life: Life, { type, data }: { type: EventType; data: object }): Move | null => {
  const then = 'then' in data && typeof data.then === 'string' ? data.then : undefined
  const key = then ? `${type} ${then}` : type
  let known = moves.get(life)
  if (!known) {
    known = new Map()
    moves.set(life, known)
  }
  let move = known.get(key)
  if (move === undefined) {
    move = workOut(life, type, then)
    known.set(key, move)
  }
  return move
}

const workOut = (life: Life, type: EventType, then: string | undefined): Move | null => {
  if (!life.can({ type, then })) return null
  const [after, intents] = transition(machine, life, { type, then })
  const effect = intents.map((intent) => intent.type).find(isEffect) ?? null
  return { life: shared(after), effect, busy: after.hasTag('busy') }
}

const shared = (life: Life): Life => {
  const key = JSON.stringify(life.value)
  const known = lives.get(key) ?? life
  lives.set(key, known)
  return known
}

const isEffect = (type: string): type is EffectName => (EFFECTS as readonly string[]).includes(type)
