/** A client that takes nodes through their lives over the REST API, as any operator's program would. */
import type { DemoImage } from './image.ts'
import type { RackNode } from './rack.ts'

const STEP_DEADLINE_MS = 300_000

export type Answer = { readonly status: number; readonly body: Record<string, unknown> }
export type Client = ReturnType<typeof openClient>

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

  /** Resolves when the node is in that state, or fails as soon as it is in a failed one. */
  const become = async (name: string, state: string, deadline_ms = STEP_DEADLINE_MS): Promise<void> => {
    const signal = AbortSignal.timeout(deadline_ms)
    for await (const _ of eventsOf(url, name, signal)) {
      const node = await must('GET', `/v1/nodes/${name}`)
      if (node['state'] === state && node['busy'] === false) return
      if (String(node['state']).endsWith('-failed')) {
        throw new Error(`${name} is ${node['state']}: ${JSON.stringify(node['failure'])}`)
      }
    }
    throw new Error(`${name} did not become ${state} within ${deadline_ms} ms`)
  }

  return {
    url,
    call,
    must,
    become,
    enroll: (node: RackNode) =>
      must('POST', '/v1/nodes', {
        name: node.name,
        driver: 'ipmi',
        bmc: node.bmc,
        ports: [node.mac],
        metadata: { serial: node.serial },
      }),
    async command(name: string, command: string, body: object, state: string): Promise<void> {
      await must('POST', `/v1/nodes/${name}/${command}`, body)
      await become(name, state)
    },
  }
}

/** A yield for each batch of the node's events, and one at the start: something may have changed. */
async function* eventsOf(url: string, name: string, signal: AbortSignal): AsyncGenerator<void> {
  yield
  const response = await fetch(`${url}/v1/events?node=${encodeURIComponent(name)}`, { signal })
  if (!response.body) throw new Error('no event stream')
  try {
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
