/** Outside programs end when they should: at their end, on abort, and with the service. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { test } from 'node:test'
import { run } from '../../src/boot/run.ts'

const signal = AbortSignal.timeout(20_000)
const RUN = new URL('../../src/boot/run.ts', import.meta.url).href

async function isGone(pid: number): Promise<void> {
  while (
    await access(`/proc/${pid}`).then(
      () => true,
      () => false,
    )
  ) {
    signal.throwIfAborted()
    await new Promise((next) => setImmediate(next))
  }
}

test('output, exit code and errors come back, the output no longer than allowed', async () => {
  const ran = await run(['sh', '-c', 'echo out; echo err >&2; exit 3'], { signal })
  assert.deepEqual({ ...ran, stdout: ran.stdout.toString() }, { code: 3, stdout: 'out\n', stderr: 'err' })
  const long = await run(['sh', '-c', 'seq 1 100000; echo end'], { signal, keep_bytes: 100 })
  assert.equal(long.stdout.length, 100)
  assert.match(long.stdout.toString(), /end\n$/)
})

test('a program that is not there is an error, not an exit code of its own', async () => {
  assert.equal((await run(['no-such-program-here'], { signal })).code, 127)
})

test('an abort kills it, and comes back only when it is gone', async () => {
  const stop = new AbortController()
  let pid = 0
  const running = run(['sh', '-c', "trap '' TERM; echo $$; exec sleep 60"], {
    signal: stop.signal,
    onOutput(text) {
      pid = Number(text)
      stop.abort(new Error('enough'))
    },
  })
  await assert.rejects(running, /enough/)
  await assert.rejects(access(`/proc/${pid}`))
  await assert.rejects(run(['true'], { signal: stop.signal }), /enough/)
})

test('when the service is killed the program is killed with it', async (t) => {
  const text = `import { run } from '${RUN}'
    await run(['sh', '-c', 'echo $$; exec sleep 60'], { signal: new AbortController().signal, onOutput: (pid) => process.stdout.write(pid) })`
  const service = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => service.kill('SIGKILL'))
  const [pid] = await once(service.stdout, 'data', { signal })
  service.kill('SIGKILL')
  await isGone(Number(pid))
})
