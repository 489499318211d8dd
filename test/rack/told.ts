/** What a node's history says, for tests to compare. */
import type { NodeEvent } from '../../machines/node/machine.ts'
import type { BmcLogEntry } from '../lab/bmc.ts'
import type { Told } from '../lab/life.ts'

type Type = NodeEvent['type']
type Data<T extends Type> = Extract<NodeEvent, { type: T }>['data']

/** The states that a node went through, in order. */
export const statesOf = (history: readonly Told[]): readonly string[] =>
  history.map(({ state }) => state).filter((state, i, all) => state !== all[i - 1])

/** What the events of one type hold, oldest first. */
export const allOf = <T extends Type>(history: readonly Told[], type: T): readonly Data<T>[] =>
  history.filter((event) => event.type === type).map(({ data }) => data as Data<T>)

/** What the newest event of a type holds. @throws Error when there is none */
export const lastOf = <T extends Type>(history: readonly Told[], type: T): Data<T> => {
  const found = allOf(history, type).at(-1)
  if (!found) throw new Error(`no ${type} among ${history.map((event) => event.type).join(', ')}`)
  return found
}

/** How long the node waited for neither itself nor the network, over its whole history. */
export const gapOf = (history: readonly Told[]): number =>
  history.reduce((sum, { data }) => sum + ('gap_ms' in data ? data.gap_ms : 0), 0)

/** What the BMC did, in words; what was already so is left out. */
export const done = (log: readonly BmcLogEntry[]): readonly string[] =>
  log.filter(({ outcome }) => outcome === 'done').map(({ what, detail }) => `${what} ${detail}`.trim())
