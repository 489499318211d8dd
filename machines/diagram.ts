/** The lifecycle as data and as a Mermaid diagram, drawn from the machine itself so that neither can drift from it. */
import type { AnyStateMachine, AnyStateNode } from 'xstate'
import { commands } from './node/commands.ts'
import { MACHINE_VERSION, machine } from './node/machine.ts'
import { takenIn } from './node/refusal.ts'

type Transition = { from: string; to: string; event: string; guard: string | null }

export const diagram = () => {
  const regions = Object.entries((machine as AnyStateMachine).root.states)
  return {
    version: MACHINE_VERSION,
    regions: Object.fromEntries(
      regions.map(([name, region]) => [
        name,
        {
          initial: region.initial?.target?.[0]?.key ?? null,
          states: Object.values(region.states).map((state) => ({
            name: state.key,
            kind: state.tags[0] ?? null,
            doc: (state.meta as { doc?: string } | undefined)?.doc ?? null,
          })),
          transitions: Object.values(region.states).flatMap(transitionsOf),
        },
      ]),
    ),
    commands: (Object.keys(commands) as (keyof typeof commands)[]).map((name) => ({
      name,
      doc: commands[name].doc,
      taken_in: takenIn(name),
    })),
    mermaid: mermaid(regions),
  }
}

const transitionsOf = (state: AnyStateNode): Transition[] =>
  [...state.transitions.values()].flat().flatMap(({ target, eventType, guard }) =>
    (target ?? [state]).map((to) => ({
      from: state.key,
      to: to.key,
      event: eventType,
      guard: typeof guard === 'string' ? guard : null,
    })),
  )

/** Regions side by side; a transition that stays in its state is left out, so that the picture can be read. */
const mermaid = (regions: [string, AnyStateNode][]): string =>
  [
    'stateDiagram-v2',
    '  state node {',
    ...regions.flatMap(([name, region], place) => [
      ...(place > 0 ? ['    --'] : []),
      `    %% ${name}`,
      ...Object.keys(region.states)
        .filter((state) => idOf(state) !== state)
        .map((state) => `    state "${state}" as ${idOf(state)}`),
      ...(region.initial?.target ?? []).map((first) => `    [*] --> ${idOf(first.key)}`),
      ...Object.values(region.states)
        .flatMap(transitionsOf)
        .filter(({ from, to }) => from !== to)
        .map(
          ({ from, to, event, guard }) => `    ${idOf(from)} --> ${idOf(to)}: ${event}${guard ? ` [${guard}]` : ''}`,
        ),
    ]),
    '  }',
  ]
    .join('\n')
    .concat('\n')

/** Mermaid reads a hyphen in an id as the beginning of an arrow. */
const idOf = (state: string) => state.replaceAll('-', '_')
