/** An iSCSI initiator in user space, for tests of what the ramdisk exports. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

const BYTES = 1024 * 1024
const DEADLINE_MS = 60_000
const run = promisify(execFile)

export type Login = {
  /** Where the data and the secret may lie for a moment. */
  readonly dir: string
  readonly port: number
  readonly target: string
  readonly user: string
  readonly secret: string
}

/** Writes a MiB of random data to the start of LUN 0, and gives it. @throws when the target refuses the login */
export async function writeOverIscsi({ dir, port, target, user, secret }: Login): Promise<Buffer> {
  const data = randomBytes(BYTES)
  await writeFile(join(dir, 'data'), data)
  await writeFile(join(dir, 'secret'), secret, { mode: 0o600 })
  const lun = `driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=127.0.0.1:${port},file.target=${target},file.lun=0`
  const args = ['--object', `secret,id=chap,file=${join(dir, 'secret')}`, '-f', 'raw', '--target-image-opts']
  const chap = `file.user=${user},file.password-secret=chap`
  await run('qemu-img', ['convert', '-n', ...args, join(dir, 'data'), `${lun},${chap}`], { timeout: DEADLINE_MS })
  return data
}

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
