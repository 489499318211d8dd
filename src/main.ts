/** Starts the service from its environment, and ends it when asked. */
import { pino } from 'pino'
import { ConfigError, readConfig } from './config.ts'
import { startService } from './service.ts'

const log = pino({
  level: process.env['BLOOMERY_LOG'] ?? 'info',
  base: null,
  // Second line of defence: secrets are not meant to come near a log line.
  redact: ['*.password', '*.secret', '*.token', '*.user_data', '*.*.password', '*.*.secret'],
})

try {
  const service = await startService(readConfig(process.env), log)
  service.failed.catch((error: unknown) => {
    log.fatal({ err: error }, 'the service cannot go on')
    process.exit(1)
  })
  await service.ready
  log.info({ api: service.url }, 'ready')
  const end = async (signal: string) => {
    log.info({ signal }, 'ending')
    await service.close()
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void end(signal))
} catch (error) {
  if (error instanceof ConfigError) log.fatal(`the settings are not right:\n${error.message}`)
  else log.fatal({ err: error }, 'the service could not start')
  process.exit(1)
}
