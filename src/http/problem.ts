/** Errors as RFC 9457 problem details: one shape for every failure that the API answers with. */
import type { Context, ErrorHandler } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { z } from 'zod'
import { ClaimRefused } from '../claims.ts'
import { EventTooLarge } from '../commit.ts'
import { PlanRefused } from '../drivers/driver.ts'
import { StoreUnavailable } from '../store/port.ts'
import { VaultError } from '../vault.ts'

/** Seconds after which a caller may try again when the log cannot be written. */
const RETRY_AFTER_S = 5

/** Every type of problem that the API answers with, and its title. */
export const PROBLEMS = {
  malformed: 'The request could not be read',
  invalid: 'The request is not valid',
  'not-found': 'There is no such thing',
  'wrong-state': 'The node is in a state that forbids this now',
  stale: 'The node has changed since you looked',
  taken: 'It belongs to another node',
  'too-large': 'The request is too large',
  unavailable: 'The log or the vault cannot be written now',
  unexpected: 'Something failed that should not have',
} as const

export const problem = (
  c: Context,
  status: ContentfulStatusCode,
  type: keyof typeof PROBLEMS,
  detail: string,
  more: object = {},
) =>
  c.body(
    JSON.stringify({ type: `/problems/${type}`, title: PROBLEMS[type], status, detail, instance: c.req.path, ...more }),
    status,
    { 'content-type': 'application/problem+json' },
  )

/** Names every field that is wrong, and what would be right. */
export const invalid = (c: Context, error: z.core.$ZodError, status: ContentfulStatusCode = 422) => {
  const errors = error.issues.map((issue) => ({ field: issue.path.join('.') || '(body)', detail: issue.message }))
  return problem(c, status, 'invalid', errors.map(({ field, detail }) => `${field}: ${detail}`).join('; '), { errors })
}

export const onError: ErrorHandler = (error, c) => {
  if (error instanceof ClaimRefused) {
    return problem(c, 409, 'taken', error.message, {
      field: error.kind === 'mac' ? 'ports' : 'name',
      node: error.holder,
    })
  }
  if (error instanceof PlanRefused) {
    const detail = `${error.field}: ${error.message}`
    return problem(c, 422, 'invalid', detail, { errors: [{ field: error.field, detail: error.message }] })
  }
  if (error instanceof EventTooLarge || (error instanceof VaultError && error.code === 'refused')) {
    return problem(c, 413, 'too-large', error.message)
  }
  if (error instanceof StoreUnavailable || (error instanceof VaultError && error.code === 'unavailable')) {
    c.header('retry-after', String(RETRY_AFTER_S))
    return problem(c, 503, 'unavailable', `${error.message}; nothing was recorded and nothing was done`)
  }
  if (error instanceof HTTPException) {
    return problem(
      c,
      error.status as ContentfulStatusCode,
      error.status === 413 ? 'too-large' : 'malformed',
      error.message,
    )
  }
  c.get('log')?.error({ err: error, path: c.req.path }, 'a request failed unexpectedly')
  return problem(c, 500, 'unexpected', 'see the log of the service')
}
