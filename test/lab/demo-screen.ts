/** What the demo shows: each node's state, step and progress; redrawn on a terminal, a line for each change elsewhere. */
import type { WriteStream } from 'node:tty'
import type { Client } from './life.ts'

const REFRESH_MS = 500
const BAR_WIDTH = 24
const MIB = 2 ** 20

type Seen = {
  readonly name: string
  readonly state: string
  readonly since: string
  readonly power: { readonly observed: string | null }
  readonly failure: { readonly reason: string } | null
  readonly work: {
    readonly step: { readonly index: number; readonly name: string } | null
    readonly plan: readonly unknown[]
  } | null
  readonly live: { readonly progress: Progress | null; readonly waiting_for: string | null } | null
}
type Progress = { readonly done: number; readonly total: number; readonly unit: string }

export const openScreen = (out: WriteStream) => {
  const began_ms = Date.now()
  const clock = () => `${((Date.now() - began_ms) / 1000).toFixed(1).padStart(7)} s`
  let drawn = 0

  const erase = () => {
    if (drawn > 0) out.write(`\x1b[${drawn}A\x1b[0J`)
    drawn = 0
  }
  const draw = (nodes: readonly Seen[]) => {
    erase()
    const width = out.columns ?? 120
    const lines = nodes.map((node) => lineOf(node).slice(0, width - 1))
    out.write(`${lines.join('\n')}\n`)
    drawn = lines.length
  }

  return {
    say(text: string): void {
      erase()
      out.write(`${clock()}  ${text}\n`)
    },
    /** Shows the nodes until the returned function is called. */
    watch(client: Client, names: readonly string[]): () => Promise<void> {
      let isOver = false
      const told = new Map<string, string>()
      const look = async () => {
        const nodes = (await Promise.all(
          names.map(async (name) => (await client.call('GET', `/v1/nodes/${name}`)).body),
        )) as unknown as Seen[]
        const known = nodes.filter((node) => node.state !== undefined)
        if (out.isTTY) draw(known)
        else {
          for (const node of known) {
            const text = `${node.state.padEnd(14)} ${node.work?.step?.name ?? ''}`
            if (told.get(node.name) !== text) out.write(`${clock()}  ${node.name.padEnd(8)} ${text}\n`)
            told.set(node.name, text)
          }
        }
      }
      const done = (async () => {
        while (!isOver) {
          await look().catch(() => {})
          await new Promise((resolve) => setTimeout(resolve, REFRESH_MS))
        }
        await look().catch(() => {})
        drawn = 0
      })()
      return async () => {
        isOver = true
        await done
      }
    },
  }
}

const lineOf = ({ name, state, since, power, work, live, failure }: Seen): string => {
  const seconds = ((Date.now() - Date.parse(since)) / 1000).toFixed(0)
  const step = work?.step ? `${work.step.index + 1}/${work.plan.length} ${work.step.name}` : ''
  const doing = failure?.reason ?? (live?.progress ? bar(live.progress) : (live?.waiting_for ?? ''))
  return `  ${name.padEnd(8)} ${(power.observed ?? '?').padEnd(3)} ${state.padEnd(16)} ${seconds.padStart(4)} s  ${step.padEnd(28)} ${doing}`
}

const bar = ({ done, total, unit }: Progress): string => {
  const amount = unit === 'bytes' ? `${(done / MIB).toFixed(0)} MiB` : `${done.toFixed(0)} ${unit}`
  if (total <= 0) return amount
  const part = Math.min(1, done / total)
  const full = Math.round(part * BAR_WIDTH)
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_WIDTH - full)}] ${(part * 100).toFixed(0).padStart(3)} %  ${amount}`
}
