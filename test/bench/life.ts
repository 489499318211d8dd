/** How many whole lives of nodes the service gets through, and what it adds to the cost of its log. */
import { cpu_ms, rss_mib, startProcess } from '../support/process.ts'
import { appendsIn, replay } from './limit.ts'
import { median, print, quantile, table, withFolder } from './table.ts'
import { NODES_IN_FLIGHT, walk } from './walk.ts'

const ROUNDS = 5
const SIZES = [200, 1000]
/** As `npm start` has it. `BENCH_NODE_ARGS=--cpu-prof` shows where the service spends its time. */
const NODE_ARGS = ['--max-semi-space-size=64', ...(process.env['BENCH_NODE_ARGS'] ?? '').split(' ')].filter(Boolean)

export const life = async (): Promise<void> => {
  const rows: (string | number)[][] = []
  for (const nodes of SIZES) rows.push(...(await measure(nodes)))
  print(
    table([['', 'nodes/s', 'CPU ms/node', 'client ms/node', 'events/node', 'p50 ms', 'p99 ms', 'RSS MiB'], ...rows]),
  )
}

const measure = (nodes: number) =>
  withFolder(async (dir) => {
    const service = await startProcess({ data_dir: dir, env: { BLOOMERY_POWER_POLL_S: '0' }, node_args: NODE_ARGS })
    const rounds: Awaited<ReturnType<typeof round>>[] = []
    let before: string | undefined
    let rss = 0
    try {
      // The first round finds code that nothing has optimised yet, and is shown apart.
      for (let i = 0; i <= ROUNDS; i++) {
        if (i === ROUNDS) before = rounds.at(-1)?.last
        rounds.push(await round(service.pid, service.url, nodes, `r${nodes}-${i}`, rounds.at(-1)?.last))
      }
      rss = rss_mib(service.pid)
    } finally {
      await service.stop()
    }
    const [cold, ...warm] = rounds
    const of = (key: keyof NonNullable<typeof cold> & string) => median(warm.map((one) => one[key] as number))
    const appends = await appendsIn(dir, before)
    const alone = []
    for (let i = 0; i <= ROUNDS; i++) alone.push(await withFolder((empty) => replay(empty, appends, NODES_IN_FLIGHT)))
    alone.shift()
    const limit = {
      per_s: median(alone.map(({ took_ms }) => (nodes / took_ms) * 1000)),
      cpu: median(alone.map((one) => one.cpu_ms / nodes)),
    }
    return [
      [
        `${nodes} nodes, first round`,
        cold?.per_s ?? 0,
        cold?.cpu ?? 0,
        cold?.client ?? 0,
        cold?.events ?? 0,
        cold?.p50 ?? 0,
        cold?.p99 ?? 0,
        '',
      ],
      [
        `${nodes} nodes, median of ${ROUNDS}`,
        of('per_s'),
        of('cpu'),
        of('client'),
        of('events'),
        of('p50'),
        of('p99'),
        rss,
      ],
      [`  the store alone`, limit.per_s, limit.cpu, '', '', '', '', ''],
      [
        `  service : store`,
        `1 : ${(limit.per_s / of('per_s')).toFixed(1)}`,
        `${(of('cpu') / limit.cpu).toFixed(1)} : 1`,
        '',
        '',
        '',
        '',
        '',
      ],
    ]
  })

const round = async (pid: number, url: string, nodes: number, prefix: string, after: string | undefined) => {
  const service = cpu_ms(pid)
  const own = process.cpuUsage()
  const { took_ms, events, answers_ms, last } = await walk({ url, nodes, prefix, after })
  const used = process.cpuUsage(own)
  return {
    per_s: (nodes / took_ms) * 1000,
    cpu: (cpu_ms(pid) - service) / nodes,
    client: (used.user + used.system) / 1000 / nodes,
    events: events / nodes,
    p50: quantile(answers_ms, 0.5),
    p99: quantile(answers_ms, 0.99),
    last,
  }
}
