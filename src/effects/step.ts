/** One step of a plan: run until it is done, fails, or runs out of the time that the log gave it. */
import type { Node, NodeEvent } from '../../machines/node/machine.ts'
import { stepName } from '../../machines/node/phase.ts'
import { BmcError } from '../bmc/port.ts'
import { type Gap, openGap } from './gap.ts'
import { type Job, StepFailure } from './job.ts'
import type { Live, RunnerTools, StepEnd } from './runner.ts'
import { whenWritable } from './writable.ts'

type Which = {
  readonly id: string
  readonly since: number
  /** Aborts with the reason 'aborted' or 'shutdown'; then nothing is recorded here. */
  readonly stop: AbortSignal
  show(live: Partial<Live>): void
  /** How long the node has waited for us to come to this step. */
  readonly lead_ms: number
}

/** The longest delay that a timer takes; longer deadlines are waited for in pieces. */
const MAX_TIMER_MS = 2 ** 31 - 1

export const runStep = async (tools: RunnerTools, which: Which): Promise<StepEnd | 'stopped'> => {
  const { fleet, clock, log, drivers } = tools
  const { id, stop, show, lead_ms } = which
  const node = fleet.get(id)
  const work = node?.work
  const step = work?.plan[work.cursor]
  if (!node || !work || !step) return 'stopped'
  const at = { attempt: work.request.revision, index: work.cursor }
  const failed = (code: string, reason: string, evidence = {}): StepEnd => ({
    type: 'StepFailed',
    data: { ...at, code, reason, evidence, gap_ms: lead_ms },
  })

  const handler = drivers.get(node.facts.driver)?.interfaces[step.interface]?.[step.step]
  if (!handler) {
    return failed('no-such-step', `driver ${node.facts.driver} has no step ${stepName(step)}`)
  }
  if (work.run > 1 && !handler.repeatable) {
    const what = stepName(step)
    return failed(
      'outcome-unknown',
      `the service was stopped while ${what} was under way; look, and ask again if needed`,
    )
  }

  const started = Date.parse(work.step_started_at ?? clock.now().toISOString())
  const limit = limitedTo(started + step.deadline_s * 1000, clock.now().getTime(), stop)
  let waiting_for: string | null = null
  const gap = openGap(() => performance.now())
  const job = jobOf(tools, which, node, limit.signal, gap, (what) => {
    waiting_for = what
    show({ waiting_for: what })
  })
  show({ waiting_for: null, progress: null })
  try {
    const evidence = limit.signal.aborted ? await Promise.reject(limit.signal.reason) : await handler.run(job)
    return { type: 'StepSucceeded', data: { ...at, evidence, gap_ms: lead_ms + gap.total_ms() } }
  } catch (error) {
    if (stop.aborted) return 'stopped'
    if (limit.expired()) {
      const during = waiting_for ? `; it was waiting for ${waiting_for}` : ''
      return failed('deadline', `not done within ${step.deadline_s} s of its start${during}`)
    }
    if (error instanceof StepFailure) return failed(error.code, error.message, error.evidence)
    if (error instanceof BmcError) return failed(`bmc-${error.code}`, error.message)
    log.error({ err: error, node: id, step }, 'a step failed in a way that no one expected')
    return failed('unexpected', error instanceof Error ? error.message : String(error))
  } finally {
    limit.clear()
    show({ waiting_for: null, progress: null })
  }
}

/** A signal that aborts at a point in time, or with another signal. */
const limitedTo = (deadline_ms: number, now_ms: number, stop: AbortSignal) => {
  const controller = new AbortController()
  let expired = false
  let timer: NodeJS.Timeout | undefined
  const wait = (left_ms: number) => {
    if (left_ms <= 0) {
      expired = true
      controller.abort('deadline')
      return
    }
    const piece_ms = Math.min(left_ms, MAX_TIMER_MS)
    timer = setTimeout(() => wait(left_ms - piece_ms), piece_ms)
  }
  const onStop = () => controller.abort(stop.reason)
  if (stop.aborted) onStop()
  else stop.addEventListener('abort', onStop)
  wait(deadline_ms - now_ms)
  return {
    signal: controller.signal,
    expired: () => expired,
    clear: () => {
      clearTimeout(timer)
      stop.removeEventListener('abort', onStop)
    },
  }
}

const jobOf = (
  { fleet, commit, bmcOf, services, clock, log }: RunnerTools,
  { id, since, show }: Which,
  node: Node,
  signal: AbortSignal,
  gap: Gap,
  waitFor: Job['waitFor'],
): Job => {
  const work = node.work as NonNullable<Node['work']>
  const current = () => fleet.get(id) ?? node
  const command = work.request.command
  const cause = { actor: { kind: 'effect', name: work.effect }, ...(command ? { command } : {}) } as const
  let bmc: ReturnType<typeof bmcOf> | undefined
  return {
    id,
    node: current,
    attempt: work.request.revision,
    index: work.cursor,
    run: work.run,
    step: work.plan[work.cursor] as Job['step'],
    get bmc() {
      bmc ??= bmcOf(id, current())
      return bmc
    },
    services,
    clock,
    signal,
    async record(decide: (node: Node) => readonly NodeEvent[]) {
      const written = () => commit(id, cause, (newest) => (newest.work?.since === since ? decide(newest) : []))
      await whenWritable(written, { id, clock, log, signal, waitFor })
      signal.throwIfAborted()
    },
    waitFor,
    progress: (progress) => show({ progress }),
    gap,
    until: (wanted, ends = signal) =>
      gap.away(
        () =>
          new Promise((resolve, reject) => {
            if (wanted(current())) return resolve(current())
            if (ends.aborted) return reject(ends.reason)
            const end = (how: () => void) => {
              unlisten()
              ends.removeEventListener('abort', onAbort)
              how()
            }
            const onAbort = () => end(() => reject(ends.reason))
            const unlisten = fleet.watch(id, (newest) => {
              if (wanted(newest)) end(() => resolve(newest))
            })
            ends.addEventListener('abort', onAbort)
          }),
      ),
  }
}
