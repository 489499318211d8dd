/** What every controller must do, whatever the vendor and the protocol; runs against each driver's simulator. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type Bmc, BmcError, BOOT_DEVICES, type PowerState } from '../../src/bmc/port.ts'
import type { Scope } from '../support/bmc-sim.ts'

/** Opens a controller of a node that is off, without boot override; `scope` is told how to put it away again. */
export type OpenBmc = (scope: Scope) => Promise<Bmc>

const ONCE = { persistent: false, firmware: 'bios' } as const
const CALL_DEADLINE_MS = 10_000
const soon = () => AbortSignal.timeout(CALL_DEADLINE_MS)

export function bmcContract(name: string, open: OpenBmc): void {
  suite(`the controller behind ${name}`, { concurrency: 1 }, () => {
    test('switches the node on and off, and asking twice does no harm', async (t) => {
      const { power } = await open(t)
      assert.equal(await power.state(soon()), 'off')
      for (const target of ['off', 'on', 'on', 'off', 'off'] as const) {
        await power.set(target, soon())
        await observed(() => power.state(soon()), target)
      }
    })

    test('shuts a node down softly, and lets one be that is off', async (t) => {
      const { power } = await open(t)
      await power.set('on', soon())
      await power.softOff(soon())
      await observed(() => power.state(soon()), 'off')
      await power.softOff(soon())
      assert.equal(await power.state(soon()), 'off')
    })

    test('resets a node that is on, and refuses one that is off', async (t) => {
      const { power } = await open(t)
      await assert.rejects(power.reset(soon()), isBmcError('refused'))
      assert.equal(await power.state(soon()), 'off')
      await power.set('on', soon())
      await power.reset(soon())
      assert.equal(await power.state(soon()), 'on')
    })

    test('keeps each boot device that it is told', async (t) => {
      const { management } = await open(t)
      for (const device of BOOT_DEVICES) {
        await management.setBootDevice(device, ONCE, soon())
        await management.setBootDevice(device, ONCE, soon())
        assert.equal(await management.bootDevice(soon()), device)
      }
    })

    test('takes an override that persists and one for UEFI', async (t) => {
      const { management } = await open(t)
      await management.setBootDevice('disk', { persistent: true, firmware: 'uefi' }, soon())
      assert.equal(await management.bootDevice(soon()), 'disk')
    })

    test('blinks its light and stops', async (t) => {
      const { management } = await open(t)
      await management.identify(5, soon())
      await management.identify(0, soon())
    })

    test('says who it is', async (t) => {
      const { management } = await open(t)
      const info = await management.info(soon())
      for (const field of [info.manufacturer, info.product, info.firmware, info.protocol]) assert.match(field, /\S/)
      assert.ok(info.guid === null || /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(info.guid))
    })

    test('lists its sensors and its events', async (t) => {
      const { management } = await open(t)
      for (const sensor of await management.sensors(soon())) {
        assert.match(sensor.name, /\S/)
        assert.ok(Number.isFinite(sensor.value))
        assert.match(sensor.status, /^\w+$/)
      }
      for (const entry of await management.systemEventLog(soon())) {
        assert.match(entry.id, /\S/)
        assert.match(entry.at, /\S/)
        assert.match(entry.event, /\S/)
      }
    })

    test('is given up at once when the caller gives up', async (t) => {
      const { power } = await open(t)
      const abort = new AbortController()
      const given_up = power.set('on', abort.signal)
      const reason = new Error('the operator said stop')
      abort.abort(reason)
      await assert.rejects(given_up, reason)
      await assert.rejects(power.state(abort.signal), reason)
    })
  })
}

export const isBmcError = (code: BmcError['code']) => (error: unknown) => {
  assert.ok(error instanceof BmcError, String(error))
  assert.equal(error.code, code, error.message)
  return true
}

const MAX_READS = 50

/** Accepted is not observed: reads until it is so. */
async function observed(read: () => Promise<PowerState>, wanted: PowerState): Promise<void> {
  for (let reads = 0; reads < MAX_READS; reads += 1) if ((await read()) === wanted) return
  assert.fail(`the node is not ${wanted} after ${MAX_READS} reads`)
}
