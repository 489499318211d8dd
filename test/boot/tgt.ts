/** A real iSCSI target in user space (tgtd) on a loopback port, with one disk and one CHAP account. */
import { spawn, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Chap, type IscsiTarget, newChap } from '../../src/boot/iscsi.ts'
import { tied } from '../../src/boot/run.ts'

const START_TRIES = 100

/** @param dir holds the backing file; removed by the caller */
export async function startTarget(t: TestContext, dir: string, disk_bytes: number, chap: Chap) {
  const control = String(randomInt(1_000, 30_000))
  const port = await freePort()
  const disk = join(dir, 'disk')
  writeFileSync(disk, '')
  truncateSync(disk, disk_bytes)
  mkdirSync('/var/run/tgtd', { recursive: true })
  const [command, ...args] = tied(['tgtd', '-f', '-C', control, '--iscsi', `portal=127.0.0.1:${port}`])
  const daemon = spawn(command, args, { stdio: 'ignore' })
  const ended = once(daemon, 'close')
  // It ignores SIGTERM while it has targets.
  const kill = async () => {
    daemon.kill('SIGKILL')
    await ended
  }
  t.after(kill)
  const admin = (...words: string[]) =>
    spawnSync('tgtadm', ['-C', control, '--lld', 'iscsi', ...words], { encoding: 'utf8', timeout: 5_000 })
  const must = (...words: string[]) => {
    const { status, stderr } = admin(...words)
    if (status !== 0) throw new Error(`tgtadm ${words.slice(0, 4).join(' ')}: ${stderr}`)
  }
  for (let tries = 0; admin('--mode', 'sys', '--op', 'show').status !== 0; tries += 1) {
    if (tries > START_TRIES) throw new Error('tgtd does not start')
    await delay(50)
  }
  const iqn = 'iqn.2026-01.test.bloomery:disk'
  must('--mode', 'target', '--op', 'new', '--tid', '1', '-T', iqn)
  must('--mode', 'logicalunit', '--op', 'new', '--tid', '1', '--lun', '1', '-b', disk)
  must('--mode', 'target', '--op', 'bind', '--tid', '1', '-I', 'ALL')
  must('--mode', 'account', '--op', 'new', '--user', chap.user, '--password', chap.secret)
  must('--mode', 'account', '--op', 'bind', '--tid', '1', '--user', chap.user)
  const target: IscsiTarget = { portal: `127.0.0.1:${port}`, iqn, lun: 1, ...chap }
  return { target, disk, kill, pause: () => daemon.kill('SIGSTOP'), resume: () => daemon.kill('SIGCONT') }
}

export { newChap }

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}
