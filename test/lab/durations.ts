/** How long each phase of each life took, and how much of it was ours: the control-plane gap. Read from the history. */
import type { Client } from './life.ts'

const PHASES: Readonly<Record<string, string>> = {
  VerificationSucceeded: 'verify',
  DiscoverySucceeded: 'discover',
  BurnInSucceeded: 'burn in',
  CleaningSucceeded: 'clean',
  DeploymentSucceeded: 'deploy',
  UndeploymentSucceeded: 'undeploy',
}

export type Life = {
  readonly name: string
  readonly phases: readonly { readonly phase: string; readonly ms: number }[]
  readonly gap_ms: number
  readonly total_ms: number
}

export const lifeOf = async (client: Client, name: string): Promise<Life> => {
  const events = await client.history(name)
  const phases = events.flatMap(({ type, duration_ms }) =>
    PHASES[type] && duration_ms !== null ? [{ phase: PHASES[type], ms: duration_ms }] : [],
  )
  const gap_ms = events.reduce((sum, { data }) => sum + ('gap_ms' in data ? data.gap_ms : 0), 0)
  return { name, phases, gap_ms, total_ms: phases.reduce((sum, { ms }) => sum + ms, 0) }
}

/** A row for each phase in the order of life, a column for each node; the last rows are sums. */
export const durationTable = async (client: Client, names: readonly string[]): Promise<string> => {
  const lives = await Promise.all(names.map((name) => lifeOf(client, name)))
  const longest = lives.reduce((most, { phases }) => Math.max(most, phases.length), 0)
  const seconds = (ms: number | undefined) => (ms === undefined ? '-' : (ms / 1000).toFixed(2)).padStart(10)
  const row = (label: string, cells: readonly (number | undefined)[]) =>
    `  ${label.padEnd(20)}${cells.map(seconds).join('')}`
  return [
    'how long each phase took, in seconds',
    `  ${''.padEnd(20)}${names.map((name) => name.padStart(10)).join('')}`,
    ...Array.from({ length: longest }, (_, i) =>
      row(
        lives.find(({ phases }) => phases[i])?.phases[i]?.phase ?? '',
        lives.map(({ phases }) => phases[i]?.ms),
      ),
    ),
    row(
      'all phases',
      lives.map(({ total_ms }) => total_ms),
    ),
    row(
      'control-plane gap',
      lives.map(({ gap_ms }) => gap_ms),
    ),
  ].join('\n')
}
