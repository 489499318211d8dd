/** A process that appends flat out to one log and prints every acknowledged event, until it is killed. */
import { writeSync } from 'node:fs'
import { embeddedStore } from '../../src/store/embedded.ts'
import { anEvent } from './store-events.ts'

const WRITERS = 16
const [path = '', run = ''] = process.argv.slice(2)
const store = embeddedStore({ path })

const write = async (stream: string) => {
  for (let expected = -1; ; ) {
    const batch = [anEvent({ run }), anEvent({ run })]
    const { revision } = await store.append(stream, expected, batch)
    // Synchronous, so that what was printed was printed before the kill.
    for (const [i, { id }] of batch.entries()) writeSync(1, `${stream} ${expected + 1 + i} ${id}\n`)
    expected = revision
  }
}
await Promise.all(Array.from({ length: WRITERS }, (_, i) => write(`node-${run}-${i}`)))
