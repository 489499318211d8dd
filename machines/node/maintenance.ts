/** Maintenance: somebody is at the node; no phase of its life starts until they are done. */
import { z } from 'zod'
import type { Fold } from './facts.ts'
import { phase } from './phase.ts'

export const events = {
  MaintenanceSet: z.object({ reason: z.string().min(1).max(1024) }),
  MaintenanceCleared: z.object({}),
}

type Data<T extends keyof typeof events> = z.infer<(typeof events)[T]>

export const facts = {
  MaintenanceSet: ((facts, { reason }, { at }) => ({ ...facts, maintenance: { reason, since: at } })) as Fold<
    Data<'MaintenanceSet'>
  >,
  MaintenanceCleared: ((facts) => ({ ...facts, maintenance: null })) as Fold<Data<'MaintenanceCleared'>>,
}

export const states = {
  off: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'In service.' },
    on: { MaintenanceSet: { target: 'on', guard: 'known' } },
  }),
  on: phase.createStateConfig({
    tags: 'stable',
    meta: { doc: 'Hands off: what runs is finished, nothing new starts; power commands still work.' },
    on: { MaintenanceCleared: { target: 'off', guard: 'known' } },
  }),
}
