/**
 * The ramdisks that are up, and the order that each of them is carrying out.
 *
 * Nothing here needs to survive: an order's id says which attempt and step it belongs to, so that after a restart the
 * step gives the same order again, and an agent that has it in hand, or has done it, answers for it once.
 */
import type { JsonObject } from '../../machines/node/phase.ts'
import { type Progress, StepFailure } from '../effects/job.ts'

export type Order = {
  /** Unique within the node: attempt, step, and what is ordered. */
  readonly id: string
  readonly verb: string
  readonly args: Readonly<Record<string, string | number>>
  /** Bytes, or a file, that the agent fetches to carry the order out. */
  readonly data?: Buffer | { readonly file: string }
}

export type OrderEnd = { readonly rc: number; readonly body: JsonObject; readonly uploads: ReadonlyMap<string, Upload> }
export type Upload = { readonly sha256: string; readonly bytes: number; readonly content: Buffer | null }

export type OrderHow = {
  readonly signal: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}

/** An agent that says nothing for so long is lost: it polls or reports at least every 50 s. */
export const AGENT_SILENCE_S = 150
/** How long a poll for orders is kept open. */
export const POLL_S = 50

type Current = {
  readonly order: Order
  readonly how: OrderHow
  readonly uploads: Map<string, Upload>
  readonly end: (end: OrderEnd) => void
  readonly fail: (error: Error) => void
}
type Link = {
  current: Current | null
  /** The last order that ended, in case it is given again after a restart. */
  ended: { readonly id: string; readonly end: OrderEnd } | null
  /** Uploads that came before their order was given again. */
  early: Map<string, Upload>
  seen_ms: number
  wake: Set<() => void>
}

export type Agents = ReturnType<typeof openAgents>

export const openAgents = (now: () => Date) => {
  const links = new Map<string, Link>()
  const linkOf = (node: string): Link => {
    const link = links.get(node) ?? {
      current: null,
      ended: null,
      early: new Map(),
      seen_ms: now().getTime(),
      wake: new Set(),
    }
    links.set(node, link)
    return link
  }
  const wakeAll = (link: Link) => {
    for (const wake of [...link.wake]) wake()
  }

  return {
    /** Gives an order and resolves with how it ended. @throws {StepFailure} when the agent is lost */
    order(node: string, order: Order, how: OrderHow): Promise<OrderEnd> {
      const link = linkOf(node)
      if (link.ended?.id === order.id) return Promise.resolve(link.ended.end)
      how.signal.throwIfAborted()
      link.seen_ms = now().getTime()
      return new Promise<OrderEnd>((resolve, reject) => {
        const leave = () => {
          clearInterval(watch)
          how.signal.removeEventListener('abort', onAbort)
          if (link.current === current) link.current = null
        }
        const current: Current = {
          order,
          how,
          uploads: link.early,
          end: (end) => {
            leave()
            resolve(end)
          },
          fail: (error) => {
            leave()
            reject(error)
          },
        }
        link.early = new Map()
        const onAbort = () =>
          current.fail(how.signal.reason instanceof Error ? how.signal.reason : new Error('aborted'))
        const watch = setInterval(() => {
          const silent_s = (now().getTime() - link.seen_ms) / 1000
          if (silent_s < AGENT_SILENCE_S) return
          current.fail(new StepFailure('agent-silent', `the ramdisk has said nothing for ${Math.round(silent_s)} s`))
        }, 5_000)
        watch.unref()
        how.signal.addEventListener('abort', onAbort)
        link.current = current
        wakeAll(link)
      })
    },

    /** How long nothing was heard of it. */
    silent_ms: (node: string): number => now().getTime() - linkOf(node).seen_ms,

    /** The ramdisk is gone, for a reason that somebody saw. */
    lost(node: string, reason: string): void {
      links.get(node)?.current?.fail(new StepFailure('agent-lost', reason))
    },

    /** The order that an idle agent is to carry out; waits for one for as long as a poll lasts. */
    async poll(node: string, signal: AbortSignal): Promise<Order | null> {
      const link = linkOf(node)
      const waiting = () => link.current?.order ?? null
      link.seen_ms = now().getTime()
      if (waiting()) return waiting()
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer)
          link.wake.delete(done)
          signal.removeEventListener('abort', done)
          resolve()
        }
        const timer = setTimeout(done, POLL_S * 1000)
        link.wake.add(done)
        signal.addEventListener('abort', done)
        if (signal.aborted) done()
      })
      link.seen_ms = now().getTime()
      return signal.aborted ? null : waiting()
    },

    /** `stop` when nobody waits for that order any more. An order not given again yet, after a restart, goes on. */
    progress(node: string, id: string, progress: Progress, isAwaited: boolean): 'go' | 'stop' {
      const link = linkOf(node)
      link.seen_ms = now().getTime()
      if (link.current?.order.id !== id) return isAwaited ? 'go' : 'stop'
      link.current.how.onProgress?.(progress)
      return 'go'
    },

    end(node: string, id: string, rc: number, body: JsonObject): void {
      const link = linkOf(node)
      link.seen_ms = now().getTime()
      const uploads = link.current?.order.id === id ? link.current.uploads : link.early
      const end = { rc, body, uploads }
      link.ended = { id, end }
      link.early = new Map()
      if (link.current?.order.id === id) link.current.end(end)
    },

    upload(node: string, id: string, name: string, upload: Upload): void {
      const link = linkOf(node)
      link.seen_ms = now().getTime()
      const uploads = link.current?.order.id === id ? link.current.uploads : link.early
      uploads.set(name, upload)
    },

    dataOf(node: string, id: string): Order['data'] | null {
      const current = links.get(node)?.current
      return current?.order.id === id ? (current.order.data ?? null) : null
    },

    /** What is known of a node's agent is dropped: its attempt is over. */
    forget(node: string): void {
      const link = links.get(node)
      if (!link) return
      link.current?.fail(new StepFailure('agent-lost', 'the attempt is over'))
      wakeAll(link)
      links.delete(node)
    },
  }
}
