/** `npm run bench -- NAME`: one file beside this one for each benchmark. */
import { print } from './table.ts'

const BENCHMARKS: Readonly<Record<string, () => Promise<unknown>>> = {
  store: () => import('./store.ts'),
  life: async () => (await import('./life.ts')).life(),
  idle: async () => (await import('./idle.ts')).idle(),
}

const [name = ''] = process.argv.slice(2)
const benchmark = BENCHMARKS[name]
if (benchmark) await benchmark()
else {
  print(`npm run bench -- NAME, where NAME is one of: ${Object.keys(BENCHMARKS).join(', ')}`)
  process.exitCode = 1
}
