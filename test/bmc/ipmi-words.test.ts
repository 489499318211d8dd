/** What ipmitool prints, and what it means: the words that no simulator says, from its tables of status and completion codes. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { readBootDevice, readSel, readSensors } from '../../src/bmc/ipmi-answers.ts'
import { ipmiError, quoted } from '../../src/bmc/ipmi-errors.ts'

const asked = {
  to: 'read the power state',
  bmc: '10.0.0.5:623',
  username: 'admin',
  privilege: 'ADMINISTRATOR',
  cipherSuite: 3,
  secret: 'open-sesame',
}
const ended = { exit: 1, stopped: null, stdout: '' } as const

suite('ipmitool', () => {
  for (const [stderr, code, advice] of [
    ['Address lookup for bmc.invalid failed', 'no-answer', /DNS/],
    ['Error in open session response message : insufficient resources to create a session', 'refused', /sessions/],
    [
      'Error in open session response message : no cipher suite match with proposed security algorithms',
      'unsupported',
      /set cipher_suite to 17/,
    ],
    [
      'RAKP 2 message indicates an error : unauthorized role or privilege level requested',
      'wrong-credentials',
      /privilege/,
    ],
    ['RAKP 2 message indicates an error : unauthorized GUID', 'refused', /said no/],
    [
      'Set Session Privilege Level to ADMINISTRATOR failed: Requested privilege level exceeds limit',
      'wrong-credentials',
      /privilege/,
    ],
    ['Set Session Privilege Level to ADMINISTRATOR failed', 'no-answer', /nothing came back/],
    ['Get Chassis Power Status failed: Node busy', 'refused', /Try again/],
    ['Get Chassis Power Status failed: Invalid command', 'unsupported', /no such command/],
    ['Set Chassis Power Control to Soft failed: Command not supported in present state', 'refused', /power state/],
    ["ipmitool: lanplus.c:1839: ipmi_lanplus_build_v2x_msg: Assertion `0' failed.", 'unsupported', /cipher/],
    ['Unable to get Chassis Power Status\nClose Session command failed', 'no-answer', /nothing came back/],
    [
      'Invalid completion code received: Invalid command\nUnable to get Chassis Power Status',
      'no-answer',
      /nothing came back/,
    ],
  ] as const) {
    test(`saying "${stderr.split('\n').at(-1)}" means ${code}`, () => {
      const error = ipmiError(asked, { ...ended, stderr: `Loading IANA PEN Registry...\n${stderr}\n` })
      assert.equal(error.code, code)
      assert.match(error.message, /^Could not read the power state through the BMC at 10\.0\.0\.5:623: /)
      assert.match(error.message, advice)
    })
  }

  test('never has its quotes carry the password, whole or in part', () => {
    const { message } = ipmiError(asked, { ...ended, stderr: 'something failed: the password open-sesame is odd' })
    assert.match(message, /the password \[password\] is odd/)
    assert.doesNotMatch(quoted(`${'.'.repeat(395)}open-sesame`, asked.secret), /open/)
  })

  test('shows the boot device whatever the valid bit says, and null for one without a word', () => {
    const answer = (data: string) =>
      readBootDevice(`Boot parameter 5 is valid/unlocked\nBoot parameter data: ${data}\n`)
    assert.deepEqual(['0004000000', 'e004000000', '8008000000', '003c000000', ''].map(answer), [
      'pxe',
      'pxe',
      'disk',
      null,
      null,
    ])
  })

  test('lists sensors with commas in their names, and leaves out those without a reading', () => {
    assert.deepEqual(readSensors('PSU 1, input,-3.5,Amps,nc,10.1,Power\nDIMM,,,ns,8.1\nIntrusion,0x1,,ok\n'), [
      { name: 'PSU 1, input', value: -3.5, unit: 'Amps', status: 'nc' },
    ])
  })

  test('lists events with the date as RFC 3339 when the controller knows it', () => {
    const text =
      'SEL has no entries\n1a,11/22/26,12:45:51 UTC,Temperature CPU,Going high,Asserted\n2,Pre-Init,0000001179,Fan,Low,\n'
    assert.deepEqual(readSel(text), [
      { id: '1a', at: '2026-11-22T12:45:51Z', sensor: 'Temperature CPU', event: 'Going high, Asserted' },
      { id: '2', at: 'Pre-Init 0000001179', sensor: 'Fan', event: 'Low' },
    ])
  })
})
