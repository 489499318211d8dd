/** What a node that boots from the network is given, and what its attempt's story says of it. */

import type { Logger } from 'pino'
import type { Node } from '../../machines/node/machine.ts'
import type { MILESTONES } from '../../machines/node/work.ts'
import type { Clock, Ids } from '../clock.ts'
import type { Commit } from '../commit.ts'
import type { Fleet } from '../fleet.ts'
import { type EventStore, type Json, NO_STREAM, RevisionConflict } from '../store/port.ts'
import type { MasterKey } from '../vault-key.ts'
import type { Agents } from './agents.ts'
import { localDiskScript, ramdiskScript, unknownScript } from './ipxe.ts'
import { agentToken, awaitedAgent } from './tokens.ts'

export type Milestone = (typeof MILESTONES)[number]
export type BootRequest = {
  readonly mac: string
  readonly address: string
  readonly uuid: string
  readonly serial: string
  readonly firmware: string
}

/** A MAC that belongs to no node is recorded again only after so long. */
const SEEN_AGAIN_AFTER_S = 3600
/** How often one kind of milestone is told within an attempt. */
const MAX_OF_A_KIND = 4

export type Chain = ReturnType<typeof openChain>

export type ChainTools = {
  readonly fleet: Fleet
  readonly commit: Commit
  readonly store: EventStore
  readonly agents: Agents
  readonly key: MasterKey
  readonly clock: Clock
  readonly ids: Ids
  readonly log: Logger
  readonly provisioning_url: string
  /** `ttyS0,115200n8` and such. */
  readonly consoles: readonly string[]
  /** Whether the ramdisk was built with drivers beyond the common ones. */
  readonly has_extra: boolean
}

export const openChain = (tools: ChainTools) => {
  const { fleet, commit, store, agents, key, clock, ids, log, provisioning_url, consoles } = tools

  /** Tells the attempt's story; what belongs to no attempt is not told. */
  const observe = async (mac: string, kind: Milestone, detail = ''): Promise<void> => {
    const id = fleet.withMac(mac)
    if (id === undefined || !isNews(fleet.get(id), kind)) return
    await commit(id, { actor: { kind: 'network', name: mac } }, ({ work }) =>
      work && isNews({ work }, kind)
        ? [{ type: 'BootObserved', data: { attempt: work.request.revision, kind, detail } }]
        : [],
    )
  }

  /** The script for whoever asks; asking is itself a milestone. */
  const bootScript = async (request: BootRequest): Promise<string> => {
    const { mac } = request
    const id = fleet.withMac(mac)
    const node = id === undefined ? undefined : fleet.get(id)
    if (id === undefined || !node) {
      await recordUnknown(request)
      return unknownScript({ mac })
    }
    await observe(mac, 'script', `${request.firmware} from ${request.address}`)
    const index = awaitedAgent(node)
    if (node.work?.agent && index === null && isAgentNeeded(node)) {
      agents.lost(id, 'the node asked for a boot script in the middle of the work: it has been restarted')
    }
    if (!node.work || index === null) {
      return localDiskScript({ reason: `${node.facts.name} has nothing to do here, booting from its own disk` })
    }
    const token = agentToken(key, { node: id, attempt: node.work.request.revision, index })
    const initrds = [
      'ramdisk' as const,
      ...(tools.has_extra ? (['extra'] as const) : []),
      ...(node.work.plan[index]?.args['burn_in'] === true ? (['burnin'] as const) : []),
    ]
    return ramdiskScript({ base_url: provisioning_url, mac, token, initrds, consoles })
  }

  const recordUnknown = async ({ mac, address, uuid, serial, firmware }: BootRequest): Promise<void> => {
    const stream = `seen-${mac.replaceAll(':', '')}`
    const [last] = await store.read(stream, { direction: 'backwards', limit: 1 })
    const now = clock.now()
    if (last && now.getTime() - Date.parse(last.at) < SEEN_AGAIN_AFTER_S * 1000) return
    const data: Json = { mac, address, uuid, serial, firmware }
    const meta: Json = { actor: { kind: 'network', name: mac } }
    try {
      await store.append(stream, last?.revision ?? NO_STREAM, [
        { id: ids.uuid(), type: 'UnknownMacSeen', at: now.toISOString(), data, meta },
      ])
    } catch (error) {
      if (!(error instanceof RevisionConflict)) throw error
    }
    log.info({ mac, address, serial }, 'a MAC that belongs to no node asked for a boot script')
  }

  return { observe, bootScript }
}

/** Whether telling it adds something: not twice the same in a row, and not for ever. */
const isNews = (node: Pick<Node, 'work'> | undefined, kind: Milestone): boolean => {
  const boot = node?.work?.boot
  if (!boot || boot.at(-1)?.kind === kind) return false
  return boot.filter((told) => told.kind === kind).length < MAX_OF_A_KIND
}

/** Steps that an agent carries out: while one of them is at the cursor the node must not restart. */
const AGENT_INTERFACES = new Set(['inspect', 'burn-in', 'clean', 'deploy'])
const isAgentNeeded = ({ work }: Node): boolean => {
  const step = work?.plan[work.cursor]
  return step !== undefined && AGENT_INTERFACES.has(step.interface)
}
