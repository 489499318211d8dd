/** Owns a rack with one node switched on, in the directory of its argument, until it is killed. For the test of just that. */

import { startRack } from './rack.ts'

const rack = await startRack({ dir: process.argv[2] ?? '', nodes: 1 })
await rack.ipmitool(0, 'chassis', 'power', 'on')
process.stdout.write(`${rack.namespace}\n`)
await new Promise(() => setInterval(() => {}, 60_000))
