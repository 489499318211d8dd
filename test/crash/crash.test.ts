/** kill -9 at any moment: the service that comes after it finishes the work, loses nothing, and does no harm twice. */
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { type Asked, assertOneWriterAtATime, CHECKSUM, diskAfter, type Moment, openMortal } from './mortal.ts'

/** Services at a time: they mostly wait. */
const AT_ONCE = 4
const CHUNKS = 8
const WRITTEN = Array.from({ length: CHUNKS }, (_, chunk) => `${CHECKSUM}/${chunk}`)

/** The way to the command that is killed, where the node ends, and how often its power must change on the way. */
const WAYS = {
  provide: { way: ['verify', 'discover'], ends: 'available', power_changes: 2, disk: [] },
  deploy: { way: ['verify', 'discover', 'provide'], ends: 'active', power_changes: 3, disk: WRITTEN },
  undeploy: { way: ['verify', 'discover', 'provide', 'deploy'], ends: 'available', power_changes: 4, disk: [] },
} as const satisfies Partial<Record<Asked, object>>

const killedDuring = async (t: TestContext, command: keyof typeof WAYS, moment: Moment) => {
  const { way, ends, power_changes, disk } = WAYS[command]
  const mortal = await openMortal(t)
  for (const step of way) await mortal.lead(step)
  const died = await mortal.leadAndKill(command, moment)

  assert.equal(died, 'event' in moment && moment.event === 'DeploymentSucceeded' ? 'done' : 'unfinished')
  assert.equal(await mortal.state(), ends)
  mortal.assertNothingLost()
  const journal = mortal.journal()
  assertOneWriterAtATime(journal)
  assert.deepEqual(diskAfter(journal), disk)
  const changes = journal.filter(({ did }) => did === 'power').length
  assert.ok(changes >= power_changes && changes <= power_changes + 1, `the power changed ${changes} times`)
}

const MOMENTS: readonly (readonly [keyof typeof WAYS, string, Moment])[] = [
  ['deploy', 'asked for', { event: 'DeploymentRequested' }],
  ['deploy', 'its first step begun', { event: 'StepStarted' }],
  ['deploy', 'the disk opened', { did: 'write-begin' }],
  ['deploy', 'an eighth of the image written', { did: 'write' }],
  ['deploy', 'half of the image written', { did: 'write', nth: 4 }],
  ['deploy', 'the image nearly written', { did: 'write', nth: 8 }],
  ['deploy', 'the disk closed', { did: 'write-end' }],
  ['deploy', 'the image recorded as written', { event: 'StepSucceeded' }],
  ['deploy', 'the power switched on', { did: 'power' }],
  ['deploy', 'the tenant booting', { event: 'StepStarted', nth: 3 }],
  ['deploy', 'done', { event: 'DeploymentSucceeded' }],
  ['provide', 'burning in', { event: 'StepStarted', nth: 2 }],
  ['provide', 'burned in', { event: 'BurnInSucceeded' }],
  ['provide', 'the disk wiped', { did: 'wipe' }],
  ['undeploy', 'the power switched off', { did: 'power' }],
  ['undeploy', 'the tenant taken off', { event: 'UndeploymentSucceeded' }],
]

describe('a service that is killed without warning', { concurrency: AT_ONCE }, () => {
  for (const [command, when, moment] of MOMENTS) {
    it(`takes up the ${command} where it was: ${when}`, (t) => killedDuring(t, command, moment))
  }
})

describe('a journal with two writers', () => {
  const line = (pid: number, did: string) => ({ pid, did })

  it('is seen when one writes within the write of the other', () => {
    const journal = [line(1, 'write-begin'), line(1, 'write'), line(2, 'write'), line(2, 'write-end')]
    assert.throws(() => assertOneWriterAtATime(journal), /within the write of another/)
  })
  it('is seen when one goes on after the other has taken over', () => {
    const journal = [line(1, 'write-begin'), line(2, 'write-begin'), line(1, 'write'), line(2, 'write-end')]
    assert.throws(() => assertOneWriterAtATime(journal), /after another has taken over/)
  })
  it('is seen when the last write never ended', () => {
    assert.throws(() => assertOneWriterAtATime([line(1, 'write-begin')]), /never ended/)
  })
})
