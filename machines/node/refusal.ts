/** Why a command is refused now, in words: the node is elsewhere in its life, busy, or in somebody's hands. */
import { type CommandName, commands } from './commands.ts'
import { lifeStates, type Node, stateOf } from './machine.ts'
import { stepName } from './phase.ts'

/** The states of life that have room for a command. */
export const takenIn = (name: CommandName): string[] => {
  const events: string[] = name === 'abort' ? ['AttemptAborted', 'AttemptGivenUp'] : [commands[name].event]
  return Object.entries(lifeStates)
    .filter(([, state]) => events.some((event) => state.ownEvents.includes(event as never)))
    .map(([state]) => state)
}

export const whyNot = (node: Node, name: CommandName): string => {
  const state = stateOf(node)
  const { work, facts } = node
  if (state === 'forgotten') return 'the node is forgotten; only its history is left'
  if (name === 'abort') return 'nothing is running and nothing has failed'
  if (name === 'retry') return state.endsWith('-failed') ? blocked(node) : `nothing has failed: the node is ${state}`
  if (name === 'set-maintenance') return `the node is in maintenance already: ${facts.maintenance?.reason}`
  if (name === 'clear-maintenance') return 'the node is not in maintenance'
  if (takenIn(name).includes(state)) return blocked(node)
  if (work) {
    const step = work.plan[work.cursor]
    const at = step ? `, at step ${work.cursor + 1} of ${work.plan.length} (${stepName(step)})` : ''
    return `the node is ${state === 'active' || work.effect === 'switch-power' ? 'switching its power' : state} since ${work.since_at}${at}; wait for it to end, or abort it`
  }
  return `${name} is taken by a node that is ${listed(takenIn(name))}; this one is ${state}`
}

const blocked = ({ facts, life, work }: Node): string => {
  if (life.value.maintenance === 'on') {
    return `the node is in maintenance since ${facts.maintenance?.since}: ${facts.maintenance?.reason}`
  }
  if (life.value.power === 'switching')
    return `the power is being switched since ${work?.since_at}; wait for it to end, or abort it`
  return 'what failed cannot be asked again from here'
}

const listed = (words: readonly string[]): string =>
  words.length < 2 ? (words[0] ?? 'in no state at all') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`
