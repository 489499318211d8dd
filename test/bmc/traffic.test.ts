/** One controller, one command at a time: order, pause, abort and bound. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { MAX_WAITING_COMMANDS, traffic } from '../../src/bmc/traffic.ts'
import type { Clock } from '../../src/clock.ts'
import { isBmcError } from './bmc-contract.ts'

const never = new AbortController().signal
const bmc = { bmc: '10.0.0.5:623', minInterval_ms: 100 }

suite('traffic to a controller', () => {
  test('goes one command at a time, in the order of asking, with the pause between', async () => {
    const clock = steppedClock()
    const { inTurn } = traffic(clock)
    const seen: string[] = []
    const command = (name: string) => () => {
      seen.push(`${name} starts at ${clock.now().getTime()}`)
      return clock.sleep(30, never).then(() => void seen.push(`${name} ends at ${clock.now().getTime()}`))
    }
    await Promise.all(['a', 'b', 'c'].map((name) => inTurn(bmc, never, command(name))))
    assert.deepEqual(seen, [
      'a starts at 0',
      'a ends at 30',
      'b starts at 130',
      'b ends at 160',
      'c starts at 260',
      'c ends at 290',
    ])
  })

  test('of one controller does not hold up another', async () => {
    const { inTurn } = traffic(steppedClock())
    const first = Promise.withResolvers<void>()
    const held = inTurn(bmc, never, () => first.promise)
    assert.equal(await inTurn({ ...bmc, bmc: '10.0.0.6:623' }, never, async () => 'through'), 'through')
    first.resolve()
    await held
  })

  test('waits also after a command that failed, and that one alone fails', async () => {
    const clock = steppedClock()
    const { inTurn } = traffic(clock)
    const failed = inTurn(bmc, never, () => Promise.reject(new Error('no')))
    const next = inTurn(bmc, never, async () => clock.now().getTime())
    await assert.rejects(failed, /no/)
    assert.equal(await next, 100)
  })

  test('lets go of who gives up while waiting, without letting the next one overtake', async () => {
    const { inTurn } = traffic(steppedClock())
    const first = Promise.withResolvers<void>()
    const seen: string[] = []
    const held = inTurn(bmc, never, () => first.promise.then(() => void seen.push('first')))
    const abort = new AbortController()
    const given_up = inTurn(bmc, abort.signal, async () => void seen.push('given up'))
    const last = inTurn(bmc, never, async () => void seen.push('last'))
    const reason = new Error('stop')
    abort.abort(reason)
    await assert.rejects(given_up, reason)
    assert.deepEqual(seen, [])
    first.resolve()
    await Promise.all([held, last])
    assert.deepEqual(seen, ['first', 'last'])
  })

  test('lets go of who gives up during the pause', async () => {
    const abort = new AbortController()
    const clock = steppedClock({ onSleep: () => abort.abort(new Error('stop')) })
    const { inTurn } = traffic(clock)
    await inTurn(bmc, never, async () => {})
    const given_up = inTurn(bmc, abort.signal, async () => assert.fail('sent all the same'))
    await assert.rejects(given_up, /stop/)
    assert.equal(clock.now().getTime(), 0)
  })

  test('is refused when too many are waiting, and flows again afterwards', async () => {
    const { inTurn } = traffic(steppedClock())
    const first = Promise.withResolvers<void>()
    const held = inTurn(bmc, never, () => first.promise)
    const waiting = Array.from({ length: MAX_WAITING_COMMANDS }, () => inTurn(bmc, never, async () => {}))
    await assert.rejects(
      inTurn(bmc, never, async () => {}),
      isBmcError('no-answer'),
    )
    first.resolve()
    await Promise.all([held, ...waiting])
    assert.equal(await inTurn(bmc, never, async () => 'through'), 'through')
  })
})

/** Time that passes only by being waited for. */
function steppedClock({ onSleep = () => {} } = {}): Clock {
  let now_ms = 0
  return {
    now: () => new Date(now_ms),
    async sleep(duration_ms, signal) {
      onSleep()
      if (!signal.aborted) now_ms += duration_ms
    },
  }
}
