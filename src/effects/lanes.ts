/**
 * How much may be done at once: a lane for each effect, first come first served.
 *
 * A thousand nodes asked to be deployed at once wait in the deploy lane, while a power command goes by in its own.
 */
import type { EffectName } from '../../machines/node/phase.ts'

export type LaneLimits = Readonly<Record<EffectName, number>>

/** How many nodes may be in each phase at once, unless configured otherwise. */
export const DEFAULT_LANES: LaneLimits = {
  verify: 64,
  discover: 64,
  'burn-in': 256,
  clean: 64,
  deploy: 32,
  undeploy: 64,
  'switch-power': 64,
}

export type Lanes = ReturnType<typeof openLanes>

type Ticket = { readonly start: () => void; started: boolean }

export const openLanes = (limits: LaneLimits) => {
  const lanes = new Map<EffectName, { running: number; waiting: Set<Ticket> }>()
  const laneOf = (effect: EffectName) => {
    const lane = lanes.get(effect) ?? { running: 0, waiting: new Set<Ticket>() }
    lanes.set(effect, lane)
    return lane
  }

  const startNext = (effect: EffectName) => {
    const lane = laneOf(effect)
    for (const ticket of lane.waiting) {
      if (lane.running >= limits[effect]) return
      lane.waiting.delete(ticket)
      lane.running++
      ticket.started = true
      ticket.start()
    }
  }

  return {
    /** Calls `start` once there is room. The returned function gives the place up, taken or not; calling it twice is safe. */
    enter(effect: EffectName, start: () => void): () => void {
      const ticket: Ticket = { start, started: false }
      laneOf(effect).waiting.add(ticket)
      startNext(effect)
      let left = false
      return () => {
        if (left) return
        left = true
        const lane = laneOf(effect)
        if (!lane.waiting.delete(ticket) && ticket.started) lane.running--
        startNext(effect)
      }
    },
    counts: (effect: EffectName) => {
      const { running, waiting } = laneOf(effect)
      return { running, waiting: waiting.size, limit: limits[effect] }
    },
  }
}
