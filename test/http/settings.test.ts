/** Settings: what is wrong with them is said at the start, each by its name. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { ConfigError, readConfig } from '../../src/config.ts'

const refuses = (env: Record<string, string>, why: RegExp) =>
  assert.throws(
    () => readConfig(env),
    (error) => error instanceof ConfigError && why.test(error.message),
  )

suite('settings', () => {
  test('have a default each, and it is safe', () => {
    const config = readConfig({})
    assert.deepEqual([config.api, config.data_dir, config.store_path], ['127.0.0.1:8080', './data', './data/events.db'])
    assert.equal(config.provisioning, null)
    assert.equal(config.lanes.deploy, 32)
  })

  test('do not open the API to others without a word', () => {
    for (const api of ['0.0.0.0:8080', '192.0.2.7:80', '[::]:8080', 'example.org:80']) {
      refuses({ BLOOMERY_API: api }, /BLOOMERY_API_UNPROTECTED=yes/)
      assert.equal(readConfig({ BLOOMERY_API: api, BLOOMERY_API_UNPROTECTED: 'yes' }).api, api)
    }
    for (const api of ['127.0.0.1:0', '127.9.9.9:80', '[::1]:8080', 'localhost:80', 'fd:3']) {
      assert.equal(readConfig({ BLOOMERY_API: api }).api, api)
    }
    refuses({ BLOOMERY_API: '8080' }, /HOST:PORT/)
  })

  test('that do not exist, or are not what they should be, are named', () => {
    refuses({ BLOOMERY_APPI: '1' }, /no setting BLOOMERY_APPI/)
    refuses({ BLOOMERY_LANES: 'deploy=0' }, /BLOOMERY_LANES/)
    refuses({ BLOOMERY_LANES: 'dance=3' }, /BLOOMERY_LANES/)
    refuses({ BLOOMERY_STORE: 'postgres://' }, /sqlite:PATH/)
    refuses({ BLOOMERY_POWER_POLL_S: 'often' }, /BLOOMERY_POWER_POLL_S/)
    assert.equal(readConfig({ BLOOMERY_LANES: 'deploy=7,verify=1' }).lanes.deploy, 7)
    assert.equal(readConfig({ BLOOMERY_STORE: 'sqlite:/srv/log.db' }).store_path, '/srv/log.db')
  })
})
