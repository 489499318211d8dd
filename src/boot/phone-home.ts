/** Phone-home: the image that was written says that it runs. */
import { z } from 'zod'
import type { Commit } from '../commit.ts'
import type { Fleet } from '../fleet.ts'

/** As cloud-init's phone_home posts it, and as JSON. */
const call = z.object({
  instance_id: z.string(),
  hostname: z.string().max(255).optional(),
})

/** @returns what to answer: taken, or why not */
export const openPhoneHome =
  (fleet: Fleet, commit: Commit) =>
  async (body: unknown, address: string): Promise<{ readonly ok: boolean; readonly reason: string }> => {
    const parsed = call.safeParse(body)
    if (!parsed.success) return { ok: false, reason: 'instance_id is missing' }
    const { instance_id, hostname } = parsed.data
    const id = fleet.withInstance(instance_id)
    if (id === undefined) return { ok: false, reason: 'no node runs that instance' }
    let taken = false
    await commit(id, { actor: { kind: 'tenant', name: address } }, ({ work, facts }) => {
      const step = work?.plan[work.cursor]
      const awaited = facts.instance?.id === instance_id && step?.interface === 'boot' && step.step === 'tenant'
      taken = awaited && work !== null && !work.boot.some(({ kind }) => kind === 'tenant')
      if (!taken || !work) return []
      const detail = `phoned home from ${address}${hostname ? ` as ${hostname}` : ''}`
      return [{ type: 'BootObserved', data: { attempt: work.request.revision, kind: 'tenant', detail } }]
    })
    return { ok: true, reason: taken ? 'welcome' : 'known already' }
  }
