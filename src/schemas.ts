/** The schemas of a node's events, made into code once: each event passes one when written, and when history is read. */
import { z } from 'zod'
import { type EventType, events, type NodeEvent } from '../machines/node/machine.ts'

const compiled = new Map<string, z.ZodType>(Object.entries(events).map(([type, schema]) => [type, z.compile(schema)]))

export const isKnownType = (type: string): type is EventType => compiled.has(type)

/** The event as its schema makes it: what is missing and has a default is filled in. @throws {ZodError} */
export const checked = (type: EventType, data: unknown): NodeEvent =>
  ({ type, data: (compiled.get(type) as z.ZodType).parse(data) }) as NodeEvent
