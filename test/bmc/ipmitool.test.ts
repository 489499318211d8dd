/** The IPMI driver against a real controller's software, and against controllers that are dead, deaf, lying or hostile. */
import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { suite, type TestContext, test } from 'node:test'
import { type Run, runProgram } from '../../src/bmc/ipmi-process.ts'
import { ipmiOptions, ipmiSecrets, ipmitoolBmc } from '../../src/bmc/ipmitool.ts'
import type { BmcError } from '../../src/bmc/port.ts'
import { traffic } from '../../src/bmc/traffic.ts'
import { systemClock } from '../../src/clock.ts'
import { type BmcSim, startBmc, USERS } from '../support/bmc-sim.ts'
import { GUID } from '../support/bmc-sim-files.ts'
import { bmcContract, isBmcError } from './bmc-contract.ts'

const soon = () => AbortSignal.timeout(10_000)
const impatient = { timeout_s: 1, retries: 1 }

function connect(
  sim: Pick<BmcSim, 'options'>,
  more: Readonly<Record<string, unknown>> = {},
  { password = USERS.admin.password as string, run = runProgram } = {},
) {
  const options = ipmiOptions.parse({ ...sim.options, min_command_interval_ms: 0, ...more })
  return ipmitoolBmc(options, ipmiSecrets.parse({ password }), { traffic: traffic(systemClock), run })
}

bmcContract('ipmitool', async (scope) => connect(await startBmc(scope)))

suite('an IPMI controller', { concurrency: 2 }, () => {
  test('shows its sensors, its name and, once it is hot, what happened', async (t) => {
    const sim = await startBmc(t)
    const { management } = connect(sim)
    assert.deepEqual(await management.systemEventLog(soon()), [])
    assert.deepEqual(await management.sensors(soon()), [
      { name: 'CPU Temp', value: 45, unit: 'degrees C', status: 'ok' },
      { name: 'Fan 1', value: 6000, unit: 'RPM', status: 'ok' },
    ])
    assert.deepEqual(await management.info(soon()), {
      manufacturer: 'MontaVista Software, Inc.',
      product: '3842 (0x0f02)',
      firmware: '9.08',
      protocol: 'IPMI 2.0',
      guid: GUID,
    })
    await sim.setTemperature(90)
    const events = await until(
      () => management.systemEventLog(soon()),
      (entries) => entries.length >= 2,
    )
    assert.equal(events[0]?.sensor, 'Temperature CPU Temp')
    assert.match(
      events[0]?.event ?? '',
      /^Upper Non-critical going high, Asserted, Reading 90 > Threshold 80 degrees C$/,
    )
    assert.match(events[0]?.at ?? '', /^Pre-Init \d+$/)
  })

  test('that lies about the power is found out by reading', async (t) => {
    const sim = await startBmc(t)
    await sim.behave({ power: 'ignored' })
    const { power } = connect(sim)
    await power.set('on', soon())
    assert.equal(await power.state(soon()), 'off')
    assert.deepEqual(await sim.commands(), ['set power 1'])
  })

  test('that is slow shows the old state for a while', async (t) => {
    const sim = await startBmc(t)
    await sim.behave({ readsUntilShown: 2 })
    const { power } = connect(sim)
    await power.set('on', soon())
    const reads = [await power.state(soon()), await power.state(soon()), await power.state(soon())]
    assert.deepEqual(reads, ['off', 'off', 'on'])
  })

  test('whose node ignores a soft shutdown leaves it on', async (t) => {
    const sim = await startBmc(t)
    await sim.press('on')
    await sim.behave({ softOff: 'ignored' })
    const { power } = connect(sim)
    await power.softOff(soon())
    assert.equal(await power.state(soon()), 'on')
  })

  test('that refuses to go where it is already is not taken for broken', async (t) => {
    const sim = await startBmc(t)
    await sim.behave({ power: 'strict' })
    const { power } = connect(sim)
    await power.set('off', soon())
    await power.set('on', soon())
    await power.set('on', soon())
    assert.equal(await power.state(soon()), 'on')
  })

  test('that says no is quoted, although ipmitool may end with success', async (t) => {
    const sim = await startBmc(t)
    await sim.behave({ power: 'refused' })
    const { power } = connect(sim)
    const refusal = await failure(power.set('on', soon()), 'refused')
    assert.match(refusal.message, /^Could not switch the power on through the BMC at 127\.\S+:\d+: the BMC said no/)
    assert.match(refusal.message, /Set Chassis Power Control to Up\/On failed: Unspecified error/)
  })

  test('is never told to reset a node that is off', async (t) => {
    const sim = await startBmc(t)
    await failure(connect(sim).power.reset(soon()), 'refused')
    assert.deepEqual(await sim.commands(), [])
  })

  test('that is dead gives no answer, and answers again once it is back', async (t) => {
    const sim = await startBmc(t)
    const { power, management } = connect(sim, impatient)
    await sim.crash()
    const silence = await failure(power.state(soon()), 'no-answer')
    assert.match(silence.message, /read the power state.*nothing came back/)
    await failure(management.systemEventLog(soon()), 'no-answer')
    await sim.start()
    assert.equal(await power.state(soon()), 'off')
  })

  test('that hangs gives no answer, and does what it is asked once it wakes', async (t) => {
    const sim = await startBmc(t)
    const { power } = connect(sim, impatient)
    sim.hang()
    await failure(power.set('on', soon()), 'no-answer')
    await sim.start()
    await power.set('on', soon())
    assert.equal(await power.state(soon()), 'on')
  })

  test('that dies in the middle of a command gives no answer', async (t) => {
    const sim = await startBmc(t)
    await sim.behave({ power: 'dies' })
    await failure(connect(sim, impatient).power.set('on', soon()), 'no-answer')
  })

  test('tells a wrong password from a wrong user and from too little privilege', async (t) => {
    const sim = await startBmc(t)
    const password = 'Wrong-as-can-be'
    const wrong = await failure(connect(sim, {}, { password }).power.state(soon()), 'wrong-credentials')
    assert.match(wrong.message, /the password of user admin is wrong .*RAKP 2 HMAC is invalid/)
    const log = await failure(connect(sim, {}, { password }).management.systemEventLog(soon()), 'wrong-credentials')
    assert.match(log.message, /the password of user admin is wrong/)
    const nobody = await failure(connect(sim, { username: 'nobody' }).power.state(soon()), 'wrong-credentials')
    assert.match(nobody.message, /there is no enabled user nobody .*unauthorized name/)
    const operator = connect(sim, { username: 'operator', privilege: 'USER' }, { password: USERS.operator.password })
    assert.equal(await operator.power.state(soon()), 'off')
    const weak = await failure(operator.power.set('on', soon()), 'wrong-credentials')
    assert.match(weak.message, /user operator may not do that as USER .*Insufficient privilege level/)
    await failure(
      operator.management.setBootDevice('pxe', { persistent: false, firmware: 'bios' }, soon()),
      'wrong-credentials',
    )
    for (const { message } of [wrong, log, nobody, weak]) {
      for (const secret of [password, USERS.admin.password, USERS.operator.password])
        assert.ok(!message.includes(secret))
    }
  })

  test('that lacks the cipher suite says which setting to change', async (t) => {
    const sim = await startBmc(t)
    const lacking = await failure(connect(sim, { cipher_suite: 17 }).power.state(soon()), 'unsupported')
    assert.match(lacking.message, /does not speak cipher suite 17; set cipher_suite to 3\./)
  })

  test('cannot blink for longer than IPMI knows', async (t) => {
    await failure(connect(await startBmc(t)).management.identify(600, soon()), 'unsupported')
  })

  test('is left alone for the pause, and never sees two commands at once', async (t) => {
    const sim = await startBmc(t)
    const spans: { start_ms: number; end_ms: number }[] = []
    const run: Run = async (...call) => {
      const start_ms = Date.now()
      return runProgram(...call).finally(() => spans.push({ start_ms, end_ms: Date.now() }))
    }
    const { power } = connect(sim, { min_command_interval_ms: 50 }, { run })
    await Promise.all(Array.from({ length: 4 }, () => power.state(soon())))
    assert.equal(spans.length, 4)
    // A millisecond of grace: a timer counts from its own tick.
    for (const [i, span] of spans.entries()) assert.ok(i === 0 || span.start_ms - (spans[i - 1]?.end_ms ?? 0) >= 49)
  })
})

suite('ipmitool', () => {
  test('is killed at once on abort, and has no password among its arguments', async (t) => {
    const deaf = await deafBmc(t)
    const heard = once(deaf.socket, 'message')
    const abort = new AbortController()
    const asking = connect(deaf, { timeout_s: 10, retries: 5 }).power.state(abort.signal)
    await heard
    const [child] = await childrenAsking(deaf.options.port)
    assert.ok(child, 'ipmitool runs')
    assert.ok(!child.argv.includes(USERS.admin.password))
    assert.ok(child.argv.includes('admin'))
    const before_ms = Date.now()
    abort.abort(new Error('stop'))
    await assert.rejects(asking, /stop/)
    assert.ok(Date.now() - before_ms < 1_000)
    assert.deepEqual(await childrenAsking(deaf.options.port), [])
  })

  test('is stopped at its deadline and when it does not stop talking', async () => {
    const limits = { env: {}, signal: soon() }
    const slow = await runProgram('sleep', ['60'], { ...limits, deadline_ms: 50 })
    assert.deepEqual([slow.exit, slow.stopped], [null, 'deadline'])
    const chatty = await runProgram('yes', [], { ...limits, deadline_ms: 10_000 })
    assert.deepEqual([chatty.exit, chatty.stopped], [null, 'too-much-output'])
  })

  test('that is not installed is named', async (t) => {
    const run: Run = (_, ...call) => runProgram('no-such-program-anywhere', ...call)
    const missing = await failure(connect(await deafBmc(t), {}, { run }).power.state(soon()), 'unsupported')
    assert.match(missing.message, /Install the package ipmitool/)
  })

  test('is told in full what is wanted, and a reset only once', async (t) => {
    const asked: string[] = []
    const run: Run = async (_, args) => {
      asked.push(args.slice(args.indexOf('-R')).join(' '))
      const stdout = 'Set Boot Device to pxe\nChassis Power is on\nChassis Power Control: Reset\n'
      return { exit: 0, stopped: null, stdout, stderr: '' }
    }
    const { power, management } = connect(await deafBmc(t), {}, { run })
    await management.setBootDevice('pxe', { persistent: true, firmware: 'uefi' }, soon())
    await power.reset(soon())
    assert.deepEqual(asked, [
      '-R 2 -v raw 0x00 0x08 0x03 0x08',
      '-R 2 -v chassis bootdev pxe options=persistent,efiboot',
      '-R 2 -v chassis power status',
      '-R 1 -v chassis power reset',
    ])
  })

  test('is configured with safe cipher suites only, and passwords that fit', () => {
    const options = { address: 'bmc-7.example.org', username: 'admin' }
    assert.equal(ipmiOptions.parse(options).cipher_suite, 17)
    for (const cipher_suite of [0, 1, 2, 8]) assert.ok(!ipmiOptions.safeParse({ ...options, cipher_suite }).success)
    assert.ok(!ipmiOptions.safeParse({ ...options, address: '-oProxy' }).success)
    const long = ipmiSecrets.safeParse({ password: 'x'.repeat(21) })
    assert.ok(!JSON.stringify(long.error?.issues).includes('xxx'))
  })
})

async function failure(call: Promise<unknown>, code: BmcError['code']): Promise<BmcError> {
  const error = await call.then(
    () => assert.fail('it went well'),
    (reason: unknown) => reason,
  )
  isBmcError(code)(error)
  return error as BmcError
}

const MAX_TRIES = 100

async function until<T>(read: () => Promise<T>, isIt: (value: T) => boolean): Promise<T> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const value = await read()
    if (isIt(value)) return value
  }
  return assert.fail(`still not so after ${MAX_TRIES} reads`)
}

/** A port that hears and never speaks. */
async function deafBmc(t: TestContext) {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  t.after(() => socket.close())
  await once(socket, 'listening')
  const options = { address: '127.0.0.1', port: socket.address().port, username: 'admin', cipher_suite: 3 as const }
  return { socket, options }
}

/** Our own children that were given that port, as the kernel shows them to everybody. */
async function childrenAsking(port: number): Promise<{ argv: string }[]> {
  const read = async (pid: string, file: string) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const all = await Promise.all(
    pids.map(async (pid) => ({ parent: await read(pid, 'status'), argv: await read(pid, 'cmdline') })),
  )
  return all.filter(({ parent, argv }) => parent.includes(`\nPPid:\t${process.pid}\n`) && argv.includes(`\0${port}\0`))
}
