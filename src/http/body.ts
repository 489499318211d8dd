/** Request bodies: bounded, JSON, and what a schema says. */
import type { Context, MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { HTTPException } from 'hono/http-exception'
import { problem } from './problem.ts'

/** The most bytes that a request body may have: user data is the largest thing in one. */
export const MAX_BODY_BYTES = 262_144

const tooLarge = (c: Context) => problem(c, 413, 'too-large', `a body may have ${MAX_BODY_BYTES} bytes at most`)
const counted = bodyLimit({ maxSize: MAX_BODY_BYTES, onError: tooLarge })

/**
 * Refuses a body that is too large. A length that is announced is believed: HTTP lets no more through than that. Only a
 * body that comes in chunks is counted, which makes a stream of it and costs more than the rest of a small request.
 */
export const limited: MiddlewareHandler = async (c, next) => {
  if (c.req.header('transfer-encoding') !== undefined) return counted(c, next)
  if (Number(c.req.header('content-length') ?? 0) > MAX_BODY_BYTES) return tooLarge(c)
  return next()
}

/** The body as JSON; no body at all is an empty object. @throws {HTTPException} 400 when it is not JSON */
export const jsonBody = async (c: Context): Promise<unknown> => {
  const text = await c.req.text()
  if (text.trim() === '') return {}
  try {
    return JSON.parse(text)
  } catch (error) {
    // Only where: the parser's own message may quote the body, and there may be a password in it.
    const [where = ''] = / at position \d+/.exec((error as Error).message) ?? []
    throw new HTTPException(400, { message: `the body is not JSON${where}` })
  }
}

/** Who asks, as they say themselves (RFC 9110 §10.1.2 From), until there is authentication. */
export const actorOf = (c: Context) => ({
  kind: 'operator' as const,
  name: (c.req.header('from') ?? 'anonymous').replace(/[^\x20-\x7e]/g, '?').slice(0, 128),
})

/** The revision in `If-Match`, undefined for none or `*`. @throws {HTTPException} 400 when it is no ETag of ours */
export const ifMatch = (c: Context): number | undefined => {
  const header = c.req.header('if-match')
  if (header === undefined || header === '*') return undefined
  const found = /^"(\d+)"$/.exec(header)
  if (!found) throw new HTTPException(400, { message: 'If-Match: the ETag of a node is its revision in double quotes' })
  return Number(found[1])
}

export const etag = (revision: number) => `"${revision}"`
