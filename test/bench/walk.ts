/** Leads nodes that do not exist through a whole life, from enrolment to available again, over the API alone. */
import { openClient } from '../support/api-client.ts'

/** How many nodes are on their way at once, and over how many connections they are led. */
export const NODES_IN_FLIGHT = 256
const CONNECTIONS = 32
/** A walk takes no longer, short of a node that is stuck. */
const WALK_DEADLINE_MS = 300_000

const IMAGE = { url: 'http://127.0.0.1/image.raw', format: 'raw', checksum: `sha256:${'0'.repeat(64)}` }

/** Each command, and the event after which the next one is given. */
const LIFE = [
  { command: 'verify', body: {}, until: 'VerificationSucceeded' },
  { command: 'discover', body: {}, until: 'DiscoverySucceeded' },
  { command: 'provide', body: {}, until: 'CleaningSucceeded' },
  { command: 'deploy', body: { image: IMAGE }, until: 'DeploymentSucceeded' },
  { command: 'undeploy', body: {}, until: 'CleaningSucceeded' },
] as const

export type Walk = {
  readonly took_ms: number
  readonly events: number
  /** From sending a command to its answer. */
  readonly answers_ms: readonly number[]
}

export type WalkOptions = {
  readonly url: string
  readonly nodes: number
  /** Tells the nodes of one walk from those of another. */
  readonly prefix: string
  /** Follows the log from here on: a walk is not to be told of those before it. */
  readonly after: string | undefined
}

/** One command after the other for each node, each given when the log says that the one before is done. */
export const walk = async ({ url, nodes, prefix, after }: WalkOptions): Promise<Walk & { last: string }> => {
  const client = openClient(url, { connections: CONNECTIONS })
  const listening = Promise.withResolvers<void>()
  const finished = Promise.withResolvers<void>()
  const late = setTimeout(() => finished.reject(new Error('some nodes are stuck')), WALK_DEADLINE_MS)
  const steps = new Map<string, number>()
  const answers_ms: number[] = []
  let events = 0
  let enrolled = 0
  let done = 0
  let last = after ?? ''

  const told = async (path: string, body: object, status: number): Promise<string> => {
    const asked = performance.now()
    const answer = await client.post(path, body)
    answers_ms.push(performance.now() - asked)
    if (answer.status !== status) throw new Error(`${path}: ${answer.status} ${answer.body}`)
    return answer.body
  }
  const enrollNext = async () => {
    if (enrolled === nodes) return
    const number = enrolled++
    const mac = `02:${macOf(`${prefix}${number}`)}`
    await told(
      '/v1/nodes',
      { name: `${prefix}-${number}`, driver: 'fake', ports: [mac], metadata: { rack: prefix } },
      201,
    )
  }
  const lead = async (id: string, step: number) => {
    const next = LIFE[step]
    if (next) {
      steps.set(id, step)
      await told(`/v1/nodes/${id}/${next.command}`, next.body, 202)
      return
    }
    steps.delete(id)
    done++
    if (done === nodes) finished.resolve()
    else await enrollNext()
  }
  const following = client.follow(
    ({ event, id: position, data }) => {
      if (event === 'caught-up') return listening.resolve()
      last = position
      events++
      const isEnrolment = event === 'NodeEnrolled'
      if (!isEnrolment && !LIFE.some(({ until }) => until === event)) return
      const id = NODE_STREAM.exec(data)?.[1] ?? ''
      const step = steps.get(id) ?? -1
      if (!isEnrolment && LIFE[step]?.until !== event) return
      lead(id, step + 1).catch(finished.reject)
    },
    after === undefined ? {} : { after },
  )
  try {
    await Promise.race([
      listening.promise,
      following.then(() => Promise.reject(new Error('the stream of events ended'))),
    ])
    const started = performance.now()
    for (let i = 0; i < NODES_IN_FLIGHT; i++) enrollNext().catch(finished.reject)
    await finished.promise
    return { took_ms: performance.now() - started, events, answers_ms, last }
  } finally {
    clearTimeout(late)
    client.close()
    await following
  }
}

const NODE_STREAM = /"stream":"node-([0-9a-f-]{36})"/

/** Five bytes that no other name has, short of bad luck. */
const macOf = (name: string): string => {
  let hash = 0xcbf29ce484222325n
  for (const byte of Buffer.from(name)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn
  return (hash.toString(16).padStart(16, '0').slice(0, 10).match(/../g) ?? []).join(':')
}
