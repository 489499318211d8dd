/** What the steps of plans reach beside the BMC: handed in, so that a simulator can stand in for any of it. */
import type { Logger } from 'pino'
import type { Node } from '../../machines/node/machine.ts'
import type { Blobs } from '../blobs.ts'
import type { Agents } from '../boot/agents.ts'
import type { ImageCache } from '../boot/images.ts'
import type { Claims } from '../claims.ts'
import type { Ids } from '../clock.ts'
import type { Vault } from '../vault.ts'

export type Services = {
  readonly agents: Agents
  readonly images: ImageCache
  readonly blobs: Blobs
  readonly vault: Vault
  readonly claims: Claims
  readonly ids: Ids
  /** Calls back with the node after each of its events; returns the way to stop. */
  watch(id: string, watcher: (node: Node) => void): () => void
  readonly log: Logger
  /** Where a node reaches the provisioning listener, without a slash at the end. */
  readonly provisioning_url: string
}
