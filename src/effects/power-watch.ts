/**
 * Looks at the power of quiet nodes now and then. What has changed under our hands is recorded, never corrected; a BMC
 * that stops answering is recorded once, and once more when it is back.
 */
import type { Logger } from 'pino'
import { type Node, stateOf } from '../../machines/node/machine.ts'
import { type Bmc, BmcError } from '../bmc/port.ts'
import type { Clock } from '../clock.ts'
import type { Commit } from '../commit.ts'
import type { Fleet } from '../fleet.ts'

/** How many BMCs are asked at once. */
const AT_ONCE = 16
const LOOK_DEADLINE_MS = 30_000

const CAUSE = { actor: { kind: 'poll', name: 'power' } } as const

export type PowerWatchTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly bmcOf: (id: string, node: Node) => Bmc
  readonly clock: Clock
  readonly log: Logger
  readonly every_s: number
}

export const watchPower = async (
  { fleet, commit, bmcOf, clock, log, every_s }: PowerWatchTools,
  signal: AbortSignal,
) => {
  if (every_s === 0) return
  await fleet.ready
  while (!signal.aborted) {
    await clock.sleep(every_s * 1000, signal)
    const quiet = [...fleet.entries()].filter(([, node]) => isWatched(node)).map(([id]) => id)
    const look = async () => {
      for (let id = quiet.pop(); id !== undefined && !signal.aborted; id = quiet.pop()) {
        await lookAt(id).catch((error: unknown) => log.warn({ err: error, node: id }, 'a look at the power failed'))
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, look))
  }

  async function lookAt(id: string) {
    const node = fleet.get(id)
    if (!node || !isWatched(node)) return
    const limit = AbortSignal.any([signal, AbortSignal.timeout(LOOK_DEADLINE_MS)])
    try {
      const power = await bmcOf(id, node).power.state(limit)
      await commit(id, CAUSE, (newest) => {
        if (!isWatched(newest)) return []
        const { facts } = newest
        return [
          ...(facts.bmc_lost ? [{ type: 'BmcRegained', data: {} } as const] : []),
          ...(facts.power === power ? [] : [{ type: 'PowerObserved', data: { power, before: facts.power } } as const]),
        ]
      })
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof BmcError) && !limit.aborted) throw error
      const code = error instanceof BmcError ? error.code : 'no-answer'
      const reason = error instanceof Error ? error.message : String(error)
      await commit(id, CAUSE, (newest) =>
        isWatched(newest) && !newest.facts.bmc_lost ? [{ type: 'BmcLost', data: { code, reason } }] : [],
      )
    }
  }
}

/** Nodes whose BMC has been reached before, and on which nothing is at work. */
const isWatched = (node: Node): boolean =>
  node.work === null && node.facts.bmc_info !== null && !['unknown', 'forgotten'].includes(stateOf(node))
