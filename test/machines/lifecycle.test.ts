/** The lifecycle as a graph: every state can be reached, and none is a trap. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type AnyStateMachine, transition } from 'xstate'
import { getAdjacencyMap } from 'xstate/graph'
import { diagram } from '../../machines/diagram.ts'
import { type CommandName, commands } from '../../machines/node/commands.ts'
import {
  accepts,
  blank,
  type EventType,
  events,
  evolve,
  type Life,
  lifeStates,
  machine,
  type NodeEvent,
} from '../../machines/node/machine.ts'
import { BUSY, EFFECTS } from '../../machines/node/phase.ts'
import { takenIn } from '../../machines/node/refusal.ts'
import { AT, lifeAt } from '../support/node-builder.ts'

type Event = { readonly type: EventType; readonly then?: string }

const THEN = [undefined, 'burning-in', 'cleaning', 'manageable', 'available'] as const
const EVENTS = (Object.keys(events) as EventType[]).flatMap((type) =>
  THEN.map((then): Event => (then ? { type, then } : { type })),
)
const lives = Object.values(getAdjacencyMap(machine, { events: EVENTS })).map(({ state }) => state as Life)
const tagOf = (name: string) => lifeStates[name]?.tags[0]
const names = Object.keys(lifeStates)

suite('the lifecycle', () => {
  test('has no state that cannot be reached', () => {
    const reached = new Set(lives.map(({ value }) => value.life))
    assert.deepEqual(
      names.filter((name) => !reached.has(name as never)),
      [],
    )
  })

  test('has no dead end but forgotten', () => {
    for (const life of lives) {
      const ways = EVENTS.filter(
        (event) => life.can(event) && transition(machine, life, event)[0].value.life !== life.value.life,
      )
      const isEnd = life.value.life === 'forgotten'
      const isHeld = life.value.power === 'switching' || life.value.maintenance === 'on'
      if (!isHeld)
        assert.equal(ways.length === 0, isEnd, `${JSON.stringify(life.value)}: ${ways.map(({ type }) => type)}`)
    }
  })

  test('leads from every state to every other, forgotten apart: no node is ever lost to it', () => {
    const next = new Map(names.map((name) => [name, new Set<string>()]))
    for (const life of lives) {
      for (const event of EVENTS) {
        if (life.can(event)) next.get(life.value.life)?.add(transition(machine, life, event)[0].value.life)
      }
    }
    const from = (start: string) => {
      const found = new Set([start])
      for (const name of found) for (const to of next.get(name) ?? []) found.add(to)
      return found
    }
    const alive = names.filter((name) => name !== 'unknown' && name !== 'forgotten')
    const around = alive.filter((name) => name !== 'enrolled')
    for (const name of alive)
      assert.deepEqual(
        around.filter((other) => !from(name).has(other)),
        [],
        `from ${name}`,
      )
    for (const name of alive) assert.ok(from(name).has('forgotten'), `${name} can never be forgotten`)
  })

  test('is busy in the states that say so, and only there an effect begins', () => {
    assert.deepEqual(names.filter((name) => tagOf(name) === 'busy').sort(), [...BUSY].sort())
    for (const name of names) {
      const entries = lifeStates[name]?.entry.length
      assert.equal(entries, tagOf(name) === 'busy' ? 1 : 0, name)
    }
    for (const life of lives) {
      for (const event of EVENTS.filter((event) => life.can(event))) {
        const [after, intents] = transition(machine, life, event)
        const begun = intents.map(({ type }) => type).filter((type) => (EFFECTS as readonly string[]).includes(type))
        assert.ok(begun.length <= 1, `${event.type} begins ${begun} at once`)
        if (begun.length === 1) assert.ok(after.hasTag('busy'))
      }
    }
  })

  test('never works on a node and switches its power at the same time', () => {
    const both = lives.filter(
      ({ value }) => (BUSY as readonly string[]).includes(value.life) && value.power === 'switching',
    )
    assert.deepEqual(
      both.map(({ value }) => value),
      [],
    )
  })

  for (const busy of BUSY) {
    test(`ends ${busy} in a failed state when it is aborted, and from there it can be asked again`, () => {
      const life = lifeAt(busy)
      const [aborted] = transition(machine, life, { type: 'AttemptAborted' })
      const failed = aborted.value.life
      assert.equal(tagOf(failed), 'failed')
      assert.ok(
        EVENTS.some((event) => aborted.can(event) && transition(machine, aborted, event)[0].value.life === busy),
      )
      const ends = EVENTS.filter((event) => life.can(event)).map(({ type }) => type)
      const failures = new Set(ends.filter((type) => type.endsWith('Failed')))
      assert.equal(failures.size, 1)
      for (const type of failures) assert.equal(transition(machine, life, { type })[0].value.life, failed)
    })
  }

  test('is decided by the state and by `then`, and by nothing else', () => {
    for (const life of lives) assert.deepEqual(life.context, {})
    for (const state of Object.values((machine as AnyStateMachine).root.states).flatMap(({ states }) =>
      Object.values(states),
    )) {
      assert.equal(state.invoke.length, 0)
      assert.deepEqual(state.after, [])
      assert.ok((state.meta as { doc?: string }).doc, `${state.key} says nothing of itself`)
    }
  })

  test('gives, by its table of moves, the answers that xstate gives', () => {
    // The first look fills the table, the second reads it.
    for (const _ of [1, 2]) {
      for (const life of lives) {
        for (const event of EVENTS) {
          assert.equal(
            accepts({ ...blank, life }, event.type, event.then),
            life.can(event),
            `${event.type} ${event.then}`,
          )
          if (life.can(event)) assert.deepEqual(moved(life, event), freshly(life, event))
        }
      }
    }
  })

  test('has room somewhere for every command, and for none in forgotten', () => {
    for (const name of Object.keys(commands) as CommandName[]) {
      const taken = takenIn(name)
      if (['power', 'set-maintenance', 'clear-maintenance'].includes(name)) continue
      assert.ok(taken.length > 0, `no state takes ${name}`)
      assert.ok(!taken.includes('forgotten'))
    }
  })

  test('is drawn in the repository as it is', (t) => {
    t.assert.fileSnapshot(diagram().mermaid, 'machines/node/lifecycle.mmd', { serializers: [String] })
  })

  test('is drawn in words that Mermaid can read', () => {
    const { mermaid } = diagram()
    const declared = new Set([...mermaid.matchAll(/state "([a-z-]+)" as (\w+)/g)].map(([, , id]) => id))
    for (const line of mermaid.split('\n').slice(1)) {
      const [, from = '', to = ''] = /^ {4}(\S+) --> (\S+?)(?:: \w+(?: \[\w+\])?)?$/.exec(line) ?? []
      if (!line.includes('-->')) continue
      for (const id of [from, to]) {
        assert.match(id, /^(\w+|\[\*\])$/, line)
        if (id.includes('_')) assert.ok(declared.has(id), `${id} has no name`)
      }
    }
    for (const name of names) assert.ok(mermaid.includes(name), `${name} is not drawn`)
  })
})

/** Where the fold goes with an event of that kind, and which work it begins. */
const moved = (life: Life, { type, then }: Event) => {
  const data = { then, plans: {}, ports: [], hardware: { nics: [] }, changes: [] }
  const node = evolve({ ...blank, life }, { type, data } as unknown as NodeEvent, AT)
  return { value: node.life.value, effect: node.work?.effect ?? null }
}

const freshly = (life: Life, event: Event) => {
  const [after, intents] = transition(machine, life, event)
  const effect = intents.map(({ type }) => type).find((type) => (EFFECTS as readonly string[]).includes(type))
  return { value: after.value, effect: effect ?? null }
}
