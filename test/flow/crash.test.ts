/**
 * The service dies at every point of a node's life: at each append, just before it is durable or just after, and at each
 * wait in the middle of a step. Started again it takes up what is unfinished, and the node gets where it was going as if
 * nothing had happened: no write doubled, no power switched once more.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { stateOf } from '../../machines/node/machine.ts'
import { embeddedStore } from '../../src/store/embedded.ts'
import { type DyingStore, dyingStore, type LastAppend } from '../support/dying-store.ts'
import { IMAGE } from '../support/image.ts'
import { quickClock } from '../support/quick-clock.ts'
import { type Bloomery, bloomery, temporaryDirectory } from '../support/service.ts'

/** A claim on the name, and the enrolment itself. */
const APPENDS_TO_ENROLL = 2

type Death = { readonly append: number; readonly last: LastAppend } | { readonly sleep: number }
type Entry = { readonly did: string; readonly to?: string }

/** What to ask of a node in each stable state, to bring it to `active`. */
const NEXT: Record<string, readonly [string, object]> = {
  enrolled: ['verify', {}],
  available: ['deploy', IMAGE],
}
const next = (service: Bloomery, id: string): readonly [string, object] | undefined =>
  stateOf(service.node(id)) === 'manageable'
    ? [service.node(id).facts.hardware ? 'provide' : 'discover', {}]
    : NEXT[stateOf(service.node(id))]

/** Asks for what comes next until the node is active, or for as long as the service lives. */
const live = async (service: Bloomery, id: string, died: Promise<unknown>): Promise<void> => {
  const isDead = died.then(() => 'dead' as const)
  const settled = () =>
    service.wait(`${id} to come to rest`, () => service.node(id).work === null && service.node(id).revision >= 0)
  for (;;) {
    if ((await Promise.race([settled(), isDead])) === 'dead') return
    const command = next(service, id)
    if (!command) return
    const answer = await service.post(`/v1/nodes/${id}/${command[0]}`, command[1])
    if (answer.status !== 202) return assert.equal(answer.status, 503, JSON.stringify(answer.body))
    const seen = service.wait('the command to be seen', () => service.node(id).revision >= answer.body.revision)
    if ((await Promise.race([seen, isDead])) === 'dead') return
  }
}

/** A whole life with one death in it, and what the pretended hardware says was done to it. */
const lifeWith = async (t: Pick<TestContext, 'after'>, dir: string, death: Death | null) => {
  rmSync(dir, { recursive: true, force: true })
  const state_file = join(dir, 'hardware.jsonl')
  const path = join(dir, 'events.db')
  let store: DyingStore | undefined
  const clock = quickClock((sleep) => {
    if (!death || !('sleep' in death) || sleep !== death.sleep) return undefined
    store?.die()
    return 'stop'
  })
  mkdirSync(dir)
  const at = death && 'append' in death ? death.append + APPENDS_TO_ENROLL : 0
  store = dyingStore(embeddedStore({ path }), at, death && 'last' in death ? death.last : 'lost')
  const first = await bloomery(t, { dir, parts: { store, clock } })
  const id = await first.enroll('n1', { bmc: { state_file, delays_ms: { 'deploy.write': 80 } } })
  await live(first, id, store.died)
  const counts = { appends: store.appends() - APPENDS_TO_ENROLL, sleeps: clock.sleeps() }
  const second = await first.restart({ parts: { clock: quickClock() } })
  await live(second, id, new Promise(() => {}))
  assert.equal(stateOf(second.node(id)), 'active')
  await second.close()
  const journal = existsSync(state_file) ? readFileSync(state_file, 'utf8').trim().split('\n') : []
  return { ...counts, events: second.eventsOf(id), journal: journal.map((line) => JSON.parse(line) as Entry) }
}

const powerOf = (journal: readonly Entry[]) => journal.filter(({ did }) => did === 'power').map(({ to }) => to)

const isWhole = (journal: readonly Entry[], events: readonly { revision: number; type: string }[]) => {
  assert.deepEqual(
    events.map(({ revision }) => revision),
    [...events.keys()],
  )
  const writes = journal.map(({ did }) => did).filter((did) => did.startsWith('write'))
  const last = writes.lastIndexOf('write-begin')
  assert.deepEqual(writes.slice(last), ['write-begin', ...Array(8).fill('write'), 'write-end'])
  // Each begin is followed by its own pieces only: two writers would mix theirs.
  for (const [, pieces] of writes.join(' ').matchAll(/write-begin((?: write(?!-))*)/g)) {
    assert.ok((pieces?.split(' ').length ?? 0) <= 9)
  }
  assert.equal(journal.filter(({ did }) => did === 'reset').length, 0)
}

suite('a node whose service dies', { timeout: 120_000 }, () => {
  test('anywhere in its life becomes active all the same, with nothing doubled', async (t) => {
    const dir = join(temporaryDirectory(t), 'one')
    const calm = await lifeWith(t, dir, null)
    isWhole(calm.journal, calm.events)
    assert.ok(calm.appends >= 20 && calm.sleeps >= 8, `${calm.appends} appends, ${calm.sleeps} sleeps`)
    const each = (count: number) => Array.from({ length: count }, (_, i) => i + 1)
    const deaths: Death[] = [
      ...each(calm.appends).flatMap((append): Death[] => [
        { append, last: 'kept' },
        { append, last: 'lost' },
      ]),
      ...each(calm.sleeps).map((sleep) => ({ sleep })),
    ]
    for (const death of deaths) {
      await t.test(JSON.stringify(death), async (t) => {
        const { journal, events } = await lifeWith(t, dir, death)
        isWhole(journal, events)
        assert.deepEqual(powerOf(journal), powerOf(calm.journal))
        const begun = journal.filter(({ did }) => did === 'write-begin').length
        if ('sleep' in death) assert.equal(begun, 2, 'it died in the middle of the write')
      })
    }
  })
})
