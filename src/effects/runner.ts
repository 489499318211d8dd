/**
 * Keeps the world in step with the log.
 *
 * The log is the to-do list: a node whose events left it with work has that work running, and the event that the work
 * returns is what moves the node on. Nothing is queued outside the log, so nothing is lost: after a restart the fold
 * says what is unfinished, and it is taken up at the step that was running. None starts before history has been read to
 * its end: replaying yesterday must not switch a machine off today (design rules 3 to 7, ADR 5).
 */

import type { Logger } from 'pino'
import { evolve, type Node, type NodeEvent } from '../../machines/node/machine.ts'
import { conclude, failureOf } from '../../machines/node/outcome.ts'
import type { Work } from '../../machines/node/work.ts'
import type { Bmc } from '../bmc/port.ts'
import type { Clock } from '../clock.ts'
import type { Commit } from '../commit.ts'
import type { Drivers } from '../drivers/registry.ts'
import type { Fleet } from '../fleet.ts'
import type { Progress } from './job.ts'
import type { Lanes } from './lanes.ts'
import type { Services } from './services.ts'
import { runStep } from './step.ts'
import { STORE_RETRY_MS, whenWritable } from './writable.ts'

export type Live = {
  readonly queued: boolean
  readonly waiting_for: string | null
  readonly progress: Progress | null
}

export type Runner = ReturnType<typeof openRunner>

export type RunnerTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly drivers: Drivers
  readonly bmcOf: (id: string, node: Node) => Bmc
  readonly services: Services
  readonly lanes: Lanes
  readonly clock: Clock
  readonly log: Logger
}

const MAX_REASON_CHARACTERS = 1_000

type Running = { readonly since: number; readonly stop: AbortController; live: Live }

export const openRunner = (tools: RunnerTools) => {
  const { fleet, commit, lanes, clock, log } = tools
  const running = new Map<string, Running>()
  const shutdown = new AbortController()
  const idle = new Set<Promise<void>>()

  /** Makes what runs for one node match what its events ask for. */
  const settle = (id: string) => {
    const work = fleet.get(id)?.work
    const current = running.get(id)
    if (current) {
      // The end of what runs settles the node again: never two attempts at a time.
      if (current.since !== work?.since) current.stop.abort('aborted')
      return
    }
    if (!work || shutdown.signal.aborted) return
    start(id, work)
  }

  const start = (id: string, { since, effect }: Work) => {
    const stop = new AbortController()
    const entry: Running = { since, stop, live: { queued: true, waiting_for: null, progress: null } }
    running.set(id, entry)
    const left = Promise.withResolvers<void>()
    const leave = lanes.enter(effect, () => left.resolve())
    stop.signal.addEventListener('abort', () => left.resolve())
    const done = left.promise
      .then(() => perform(id, entry))
      .catch(async (error: unknown) => {
        log.error({ err: error, node: id }, 'work ended unexpectedly')
        // It will be begun again: not at once, or a mistake of ours would wear the node out.
        await clock.sleep(STORE_RETRY_MS[1], stop.signal)
      })
      .finally(() => {
        leave()
        running.delete(id)
        idle.delete(done)
        settle(id)
      })
    idle.add(done)
  }

  const perform = async (id: string, entry: Running): Promise<void> => {
    entry.live = { ...entry.live, queued: false }
    let next = (node: Node): readonly NodeEvent[] => begin(node, node.work as Work)
    // The node waits for us from the moment that it was asked for this, and again from the end of each step.
    const asked = fleet.get(id)?.work
    let waits_since_ms = asked?.run === 0 ? Date.parse(asked.since_at) : clock.now().getTime()
    for (;;) {
      const node = await write(id, entry, next).catch((error: unknown) => {
        log.error({ err: error, node: id }, 'what the work came to cannot be recorded')
        return write(id, entry, (newest) => unrecordable(newest, error))
      })
      const work = node?.work
      if (!work || work.since !== entry.since || entry.stop.signal.aborted) return
      const lead_ms = Math.max(0, clock.now().getTime() - waits_since_ms)
      const which = {
        id,
        since: entry.since,
        stop: entry.stop.signal,
        show: (live: Partial<Live>) => show(entry, live),
        lead_ms,
      }
      const ended = await runStep(tools, which)
      waits_since_ms = clock.now().getTime()
      if (ended === 'stopped') return
      next = (newest) => outcome(newest, ended)
    }
  }

  /** Appends for the attempt that is running; null when that attempt is over. Waits while the log cannot be written. */
  const write = async (
    id: string,
    entry: Running,
    decide: (node: Node) => readonly NodeEvent[],
  ): Promise<Node | null> => {
    const written = async () => {
      const command = fleet.get(id)?.work?.request.command
      const actor = { kind: 'effect', name: fleet.get(id)?.work?.effect ?? 'none' } as const
      await commit(id, command ? { actor, command } : { actor }, (node) =>
        node.work?.since === entry.since && !entry.stop.signal.aborted ? decide(node) : [],
      )
      return fleet.get(id) ?? null
    }
    const waitFor = (what: string) => show(entry, { waiting_for: what })
    return whenWritable(written, { id, clock, log, signal: entry.stop.signal, waitFor })
  }

  const show = (entry: Running, live: Partial<Live>) => {
    entry.live = { ...entry.live, ...live }
  }

  return {
    /** Takes up all unfinished work, oldest request first, and from then on whatever the log asks for. */
    async run(signal: AbortSignal): Promise<void> {
      await fleet.ready
      const unlisten = fleet.listen((id) => settle(id))
      const unfinished = [...fleet.entries()].filter(([, node]) => node.work)
      unfinished.sort(([, a], [, b]) => (a.work?.request.at ?? '').localeCompare(b.work?.request.at ?? ''))
      for (const [id] of unfinished) settle(id)
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve()
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
      unlisten()
      shutdown.abort()
      for (const { stop } of running.values()) stop.abort('shutdown')
      await Promise.allSettled([...idle])
    },
    /** What cannot be in the log because it is a reading: how far, waiting for what. */
    live: (id: string): Live | null => running.get(id)?.live ?? null,
    lanes,
  }
}

/** The events that begin the step at the cursor, or end the phase when none is left. */
const begin = (node: Node, work: Work): readonly NodeEvent[] => {
  const step = work.plan[work.cursor]
  if (!step) return [conclude(node, work)]
  const { revision: attempt } = work.request
  const data = { attempt, index: work.cursor, run: work.run + 1, interface: step.interface, step: step.step }
  return [{ type: 'StepStarted', data }]
}

export type StepEnd = Extract<NodeEvent, { type: 'StepSucceeded' | 'StepFailed' }>

/** What a step's end leads to, in one append: the next step begun, the phase done, or the phase failed. */
const outcome = (node: Node, ended: StepEnd): readonly NodeEvent[] => {
  const after = evolve(node, ended, '')
  if (!after.work) return [ended]
  if (ended.type === 'StepFailed') return [ended, failureOf(after.work, ended.data)]
  return [ended, ...begin(after, after.work)]
}

/** A step whose end cannot be an event must not be done again and again for that: the phase fails. */
const unrecordable = ({ work }: Node, error: unknown): readonly NodeEvent[] => {
  if (!work) return []
  const text = error instanceof Error ? error.message : String(error)
  const failed = {
    code: 'unrecordable',
    reason: `what it came to cannot be recorded: ${text.slice(0, MAX_REASON_CHARACTERS)}`,
  }
  const data = { ...failed, attempt: work.request.revision, index: work.cursor, evidence: {}, gap_ms: 0 }
  return [...(work.run > 0 ? [{ type: 'StepFailed', data } as const] : []), failureOf(work, failed)]
}
