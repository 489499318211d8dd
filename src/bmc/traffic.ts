/** Keeps the peace with a controller: one command at a time, in order, with a pause between, because many crash under more. */

import type { Clock } from '../clock.ts'
import { BmcError } from './port.ts'

/** More than this many waiting means the controller is slower than what is asked of it; the next one is told so at once. */
export const MAX_WAITING_COMMANDS = 32

/** Whose turn it is (`address:port`) and how long the controller must be left alone after each command. */
export type Lane = { readonly bmc: string; readonly minInterval_ms: number }

export interface Traffic {
  /**
   * Runs the command when every earlier one to that controller has ended and the pause is over.
   * @throws {BmcError} `no-answer` when too many are waiting already
   * @throws the signal's reason when it aborts before the command's turn; from then on the signal is the command's own matter
   */
  inTurn<T>(lane: Lane, signal: AbortSignal, command: () => Promise<T>): Promise<T>
}

/** One per process: two of them would not know of each other's commands. */
export function traffic(clock: Clock): Traffic {
  const queues = new Map<string, Queue>()
  const now_ms = () => clock.now().getTime()

  function queueOf(bmc: string): Queue {
    // Linear in the number of controllers, some microseconds for a thousand, beside a command that takes tens of milliseconds.
    for (const [name, { inside, freeAt_ms }] of queues) {
      if (inside === 0 && freeAt_ms <= now_ms()) queues.delete(name)
    }
    const queue = queues.get(bmc) ?? { inside: 0, freeAt_ms: Number.NEGATIVE_INFINITY, tail: Promise.resolve() }
    queues.set(bmc, queue)
    return queue
  }

  return {
    async inTurn({ bmc, minInterval_ms }, signal, command) {
      signal.throwIfAborted()
      const queue = queueOf(bmc)
      if (queue.inside > MAX_WAITING_COMMANDS) throw tooMany(bmc)
      const before = queue.tail
      const { promise: done, resolve: leave } = Promise.withResolvers<void>()
      queue.tail = done
      queue.inside += 1
      try {
        await orAborted(before, signal)
        // Never more than the pause itself, should the wall clock be set back meanwhile.
        const pause_ms = Math.min(queue.freeAt_ms - now_ms(), minInterval_ms)
        if (pause_ms > 0) await clock.sleep(pause_ms, signal)
        signal.throwIfAborted()
        try {
          return await command()
        } finally {
          queue.freeAt_ms = now_ms() + minInterval_ms
        }
      } finally {
        queue.inside -= 1
        // Whoever gives up while waiting must not let the next one overtake the command that still runs.
        void before.then(leave)
      }
    },
  }
}

type Queue = { inside: number; freeAt_ms: number; tail: Promise<void> }

function tooMany(bmc: string): BmcError {
  return new BmcError(
    'no-answer',
    `${MAX_WAITING_COMMANDS} commands are already waiting for the BMC at ${bmc}, so this one was not sent. ` +
      'It answers too slowly for what is asked of it: look at its network and its load, or reset the BMC.',
  )
}

async function orAborted(earlier: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([earlier, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
