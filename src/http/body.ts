/** Request bodies: bounded, JSON, and what a schema says. */
import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'

/** The most bytes that a request body may have: user data is the largest thing in one. */
export const MAX_BODY_BYTES = 262_144

/** The body as JSON; no body at all is an empty object. @throws {HTTPException} 400 when it is not JSON */
export const jsonBody = async (c: Context): Promise<unknown> => {
  const text = await c.req.text()
  if (text.trim() === '') return {}
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new HTTPException(400, { message: `the body is not JSON: ${(error as Error).message}` })
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
