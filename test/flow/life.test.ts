/** A node's life through the whole service: every phase, each failure, and what an operator may do in between. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { bloomery, nodeThatIs, typesOf } from '../support/service.ts'

suite('a fake node', { timeout: 60_000 }, () => {
  test('goes from the loading dock to its tenant and back', async (t) => {
    const { order, until, eventsOf, ...client } = await bloomery(t)
    const id = await nodeThatIs({ order, until, eventsOf, ...client }, 'active')
    await order(id, 'undeploy')
    const node = await until(id, 'available')
    assert.equal(node.facts.instance, null)
    const requested = typesOf(eventsOf(id)).filter(
      (type) => /(Requested|Succeeded)$/.test(type) && !type.startsWith('Step'),
    )
    assert.deepEqual(requested, [
      'VerificationRequested',
      'VerificationSucceeded',
      'DiscoveryRequested',
      'DiscoverySucceeded',
      'ProvisionRequested',
      'BurnInSucceeded',
      'CleaningSucceeded',
      'DeploymentRequested',
      'DeploymentSucceeded',
      'UndeploymentRequested',
      'UndeploymentSucceeded',
      'CleaningSucceeded',
    ])
  })
})
