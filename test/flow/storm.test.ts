/** A storm: many callers ask anything of a few nodes at once, steps fail, and the service dies in between. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { type CommandName, commands } from '../../machines/node/commands.ts'
import { embeddedStore } from '../../src/store/embedded.ts'
import { dyingStore } from '../support/dying-store.ts'
import { IMAGE } from '../support/image.ts'
import { bloomery, temporaryDirectory } from '../support/service.ts'

const NODES = 4
const CALLERS = 6
const CALLS = 25
const LIVES = 3
/** Answers that a caller may get, whatever it asks of a node that exists. */
const EXPECTED = new Set([202, 409, 412, 422, 503])

const body: Partial<Record<CommandName, object>> = {
  deploy: IMAGE,
  power: { action: 'cycle' },
  'set-maintenance': { reason: 'a storm' },
  update: { metadata: { storm: 'yes' } },
}
const asked = Object.keys(commands).filter((name) => !['rename', 'forget'].includes(name)) as CommandName[]
/** What leads on is asked for more often than what holds up. */
const often: CommandName[] = ['verify', 'discover', 'provide', 'deploy', 'undeploy', 'retry', 'clear-maintenance']

suite('in a storm', { timeout: 60_000 }, () => {
  for (const seed of [1, 2, 3]) {
    test(`nothing goes wrong that was not asked to, and every log can be read again (seed ${seed})`, async (t) => {
      const pick = fc.sample(fc.nat(), { seed, numRuns: 4 * LIVES * CALLERS * CALLS })
      const next = (most: number) => (pick.pop() ?? 0) % most
      const dir = temporaryDirectory(t)
      const path = join(dir, 'events.db')
      const failures = { 'deploy.write': 2, 'clean.wipe': 1, 'inspect.collect': 1, 'burn-in.cpu': 1, bmc: 1 }
      const delays_ms = { default: 1 }
      const ids: string[] = []
      for (let life = 0; life < LIVES; life++) {
        const store = dyingStore(
          embeddedStore({ path }),
          life < LIVES - 1 ? 60 + next(100) : 0,
          next(2) ? 'kept' : 'lost',
        )
        const service = await bloomery(t, { dir, parts: { store } })
        while (ids.length < NODES) {
          const state_file = join(dir, `hardware-${ids.length}.jsonl`)
          ids.push(await service.enroll(`n${ids.length}`, { bmc: { failures, delays_ms, state_file } }))
        }
        const caller = async () => {
          for (let call = 0; call < CALLS; call++) {
            const names = next(4) > 0 ? often : asked
            const name = names[next(names.length)] as CommandName
            const answer = await service.post(`/v1/nodes/${ids[next(NODES)]}/${name}`, body[name])
            assert.ok(EXPECTED.has(answer.status), `${name}: ${answer.status} ${JSON.stringify(answer.body)}`)
          }
        }
        await Promise.all(Array.from({ length: CALLERS }, caller))
        await service.close()
        const errors = service.log.filter((line) => (JSON.parse(line) as { level: number }).level >= 50)
        assert.deepEqual(errors, [])
      }
      const last = await bloomery(t, { dir })
      for (const id of ids) {
        await last.wait('rest', () => last.node(id).work === null)
        const { events } = (await last.get(`/v1/nodes/${id}/history?limit=10000`)).body
        assert.deepEqual(
          events.map(({ revision }: { revision: number }) => revision),
          [...events.keys()],
        )
        assert.ok(events.length > 10)
      }
    })
  }
})
