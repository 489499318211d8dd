/** A client that takes nodes through their lives over the REST API, as any operator's program would. */
import type { NodeEvent } from '../../machines/node/machine.ts'
import type { HistoryEntry } from '../../projections/history.ts'
import type { nodeView } from '../../projections/node-view.ts'
import type { Live } from '../../src/effects/runner.ts'
import type { DemoImage } from './image.ts'
import type { RackNode } from './rack.ts'

const STEP_DEADLINE_MS = 300_000

export type Answer = { readonly status: number; readonly body: Record<string, unknown> }
export type Client = ReturnType<typeof openClient>
export type NodeView = ReturnType<typeof nodeView> & { readonly live: Live | null }
/** An event of a node's history, by its type. */
export type Told = HistoryEntry & NodeEvent

type Found<T> = Exclude<T, undefined | null | false>

/** Short steps that still do their work: a rack of virtual machines on two cores is no data centre. */
export const DEMO_PROFILE = {
  cpu: { seconds: 2 },
  memory: { seconds: 2, percent: 20 },
  disk: { seconds: 2, mebibytes: 16, mode: 'verify-write' },
  network: { mebibytes: 16 },
}

export const openClient = (url: string, actor = 'demo@bloomery') => {
  const call = async (method: string, path: string, body?: object): Promise<Answer> => {
    const response = await fetch(url + path, {
      method,
      headers: { from: actor, ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    const text = await response.text()
    return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : { text } }
  }
  const must = async (method: string, path: string, body?: object): Promise<Record<string, unknown>> => {
    const answer = await call(method, path, body)
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const node = async (name: string) => (await must('GET', `/v1/nodes/${name}`)) as unknown as NodeView

  /** Looks at each event of the node until it is as wanted, and answers with what `look` found. */
  const wait = async <T>(
    name: string,
    what: string,
    look: (node: NodeView) => T,
    deadline_ms = STEP_DEADLINE_MS,
  ): Promise<Found<T>> => {
    const signal = AbortSignal.timeout(deadline_ms)
    let last: NodeView | undefined
    for await (const _ of eventsOf(url, name, signal)) {
      last = await node(name)
      const found = look(last)
      if (found !== undefined && found !== null && found !== false) return found as Found<T>
    }
    const at = JSON.stringify({ state: last?.state, work: last?.work, live: last?.live, failure: last?.failure })
    throw new Error(`${name}: ${what}: not within ${deadline_ms} ms; it is at ${at}`)
  }

  /** Resolves when the node is in that state, or fails as soon as it is in a failed one. */
  const become = (name: string, state: string, deadline_ms?: number): Promise<NodeView> =>
    wait(
      name,
      state,
      (node) => {
        if (node.state === state && !node.busy) return node
        if (!node.state.endsWith('-failed')) return false
        throw new Error(`${name} is ${node.state}: ${JSON.stringify(node.failure)}`)
      },
      deadline_ms,
    )

  return {
    url,
    call,
    must,
    node,
    wait,
    become,
    enroll: ({ name, bmc, mac, serial }: RackNode, more: object = {}) =>
      must('POST', '/v1/nodes', { name, driver: 'ipmi', bmc, ports: [mac], metadata: { serial }, ...more }),
    async command(name: string, command: string, body: object, state: string): Promise<NodeView> {
      await must('POST', `/v1/nodes/${name}/${command}`, body)
      return become(name, state)
    },
    async history(name: string): Promise<readonly Told[]> {
      const { events } = await must('GET', `/v1/nodes/${name}/history?limit=10000`)
      return events as readonly Told[]
    },
  }
}

/** A yield for each batch of the node's events, and one at the start: something may have changed. */
async function* eventsOf(url: string, name: string, signal: AbortSignal): AsyncGenerator<void> {
  try {
    const response = await fetch(`${url}/v1/events?node=${encodeURIComponent(name)}`, { signal })
    if (!response.ok || !response.body) throw new Error(`no event stream: ${response.status}`)
    yield
    for await (const _ of response.body) yield
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** The request that deploys the demo image by one of the deploy interfaces. */
export const deployment = (image: DemoImage, deploy_interface: 'iscsi' | 'direct', more: object = {}) => {
  const file = deploy_interface === 'iscsi' ? image.qcow2 : image.gz
  return {
    image: {
      url: `file://${file.path}`,
      format: deploy_interface === 'iscsi' ? 'qcow2' : 'raw',
      compression: deploy_interface === 'iscsi' ? 'none' : 'gzip',
      checksum: `sha256:${file.sha256}`,
    },
    deploy_interface,
    config_drive: { user_data: '#cloud-config\n{}\n' },
    ...more,
  }
}
