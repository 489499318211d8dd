/** What a service costs that has nothing to do: how soon it is ready with a thousand nodes in its log, and its memory. */
import { rss_mib, startProcess } from '../support/process.ts'
import { median, print, table, withFolder } from './table.ts'
import { walk } from './walk.ts'

const NODES = 1000
const ROUNDS = 5

export const idle = (): Promise<void> =>
  withFolder(async (dir) => {
    const options = { data_dir: dir, env: { BLOOMERY_POWER_POLL_S: '0' } }
    const empty = await withFolder(async (data_dir) => {
      const service = await startProcess({ ...options, data_dir })
      const seen = { start_ms: service.start_ms, rss: rss_mib(service.pid) }
      await service.stop()
      return seen
    })
    const first = await startProcess(options)
    const { events } = await walk({ url: first.url, nodes: NODES, prefix: 'idle', after: undefined }).finally(
      first.stop,
    )
    const rounds: { start_ms: number; rss: number }[] = []
    for (let i = 0; i < ROUNDS; i++) {
      const service = await startProcess(options)
      rounds.push({ start_ms: service.start_ms, rss: rss_mib(service.pid) })
      await service.stop()
    }
    print(
      table([
        ['', 'events', 'ready after ms', 'RSS MiB'],
        ['an empty log', '0', empty.start_ms, empty.rss],
        [
          `${NODES} nodes, median of ${ROUNDS}`,
          String(events),
          median(rounds.map(({ start_ms }) => start_ms)),
          median(rounds.map(({ rss }) => rss)),
        ],
      ]),
    )
  })
