/** A process that does nothing but supervise dnsmasq, for the tests: commands on its input, what it saw on its output. */
import { createInterface } from 'node:readline'
import { superviseDnsmasq } from '../../src/boot/dnsmasq.ts'

const stop = new AbortController()
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)
const quiet = () => {}
const { dir, network } = JSON.parse(process.argv[2] ?? '{}')

const dnsmasq = await superviseDnsmasq({
  ...network,
  dir,
  range: { first: '10.99.0.100', last: '10.99.0.200' },
  http_base: 'http://10.99.0.1:8081',
  hosts: [{ mac: '02:00:00:00:00:11', address: '10.99.0.11', name: 'node-1' }],
  onSeen: (seen) => say({ seen }),
  log: { debug: quiet, info: quiet, warn: quiet, error: (_, message) => say({ error: message }) },
  signal: stop.signal,
})
await dnsmasq.ready
say({ ready: dnsmasq.state() })

createInterface({ input: process.stdin }).on('line', async (line) => {
  const command = JSON.parse(line)
  if (command.hosts) {
    await Promise.all([dnsmasq.setHosts([]), dnsmasq.setHosts(command.hosts)])
    say({ hosts: 'read' })
  }
  if (command.state) say({ state: dnsmasq.state() })
  if (command.stop) {
    stop.abort()
    await dnsmasq.stopped
    say({ stopped: dnsmasq.state() })
    process.exit(0)
  }
})
