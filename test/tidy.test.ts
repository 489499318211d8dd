/** House rules that no compiler knows: each is checked here, so that nobody has to remember it. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { suite, test } from 'node:test'
import { promisify } from 'node:util'
import { temporaryDirectory } from './support/service.ts'

const MAX_LINES = 300
const ROOT = join(import.meta.dirname, '..')

/** @param patterns relative to the root of the project */
const files = (...patterns: string[]): { readonly path: string; readonly text: string }[] =>
  globSync(patterns, { cwd: ROOT })
    .filter((path) => !/(^|\/)(node_modules|\.cache)\//.test(path) && statSync(join(ROOT, path)).isFile())
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }))

const code = files('{src,machines,projections,test}/**/*.ts')
const pure = code.filter(({ path }) => /^(machines|projections)\//.test(path))
const written = [...code, ...files('{ADR,deploy,machines,test}/**', '*.{md,json}')].filter(
  ({ path }) => path !== 'package-lock.json',
)

/** Every place where a pattern is found, as `file:line text`. */
const found = (where: readonly { path: string; text: string }[], pattern: RegExp): string[] =>
  where.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, i) => (pattern.test(line) ? [`${path}:${i + 1} ${line.trim()}`] : [])),
  )

suite('house rules', () => {
  test('a file is a page or two, never more than six', () => {
    assert.ok(code.length > 100, 'the files were not found')
    const long = code.filter(({ text }) => text.split('\n').length - 1 > MAX_LINES)
    assert.deepEqual(
      long.map(({ path }) => path),
      [],
    )
  })

  test('a file opens with a sentence that says what it is for', () => {
    const silent = code.filter(({ text }) => !/^(#!.*\n)?\/\*\*\s+(\* )?\S[\s\S]*?[.?!:][\s\S]*?\*\//.test(text))
    assert.deepEqual(
      silent.map(({ path }) => path),
      [],
    )
  })

  test('what is pure reads no clock, no chance and no process', () => {
    const impure =
      /Date\.now|new Date\(\)|Math\.random|performance\.|crypto|setTimeout|setInterval|process\.|from 'node:/
    assert.deepEqual(found(pure, impure), [])
  })

  test('the machine has no timers and no children: they would not survive a restart', () => {
    assert.deepEqual(found(pure, /^\s*(after|invoke|always|spawn)\b\s*[:(]/), [])
  })

  test('an ADR that is cited exists', () => {
    const numbers = new Set(readdirSync(join(ROOT, 'ADR')).flatMap((name) => /^(\d{4})-.+\.md$/.exec(name)?.[1] ?? []))
    for (const { path, text } of written) {
      for (const [cited, number = ''] of text.matchAll(/\bADR (\d+)\b/g)) {
        assert.ok(numbers.has(number.padStart(4, '0')), `${path} cites ${cited}`)
      }
    }
  })

  test('nothing names a place on the machine that it was written on', () => {
    // Put together here, so that this file does not name one itself.
    const places = new RegExp(`["'\`\\s=(](${['work', 'home', 'Users'].map((name) => `/${name}/\\w`).join('|')})`)
    assert.deepEqual(found(written, places), [])
  })

  test('every test is run', () => {
    const left = new RegExp(
      `\\b(test|suite|it|describe)\\.(${['skip', 'only', 'todo'].join('|')})\\b|\\b(only|todo): true`,
    )
    assert.deepEqual(found(code, left), [])
  })

  test('a test waits for what happens, not for time, unless it watches a program that tells nothing', () => {
    const told = code.filter(({ path }) => /^test\/(flow|http|machines|projections|store)\//.test(path))
    assert.deepEqual(found(told, /setTimeout\(\s*(resolve|r|done)\b|timers\/promises/), [])
  })

  test('a port takes no boolean: two functions, or an object with words in it', () => {
    const ports = code.filter(({ path }) => /(port|driver|job)\.ts$/.test(path) && path.startsWith('src/'))
    assert.ok(ports.length >= 4)
    assert.deepEqual(found(ports, /[(,]\s*\w+\??: boolean/), [])
  })

  test('a file is named after a thing, not after having no name', () => {
    const nameless = code.filter(({ path }) => /(^|[/-])(utils?|helpers?|common|misc|manager)[.-]/i.test(path))
    assert.deepEqual(
      nameless.map(({ path }) => path),
      [],
    )
  })
})

suite('the dependency rules', { timeout: 60_000 }, () => {
  const FORBIDDEN: Readonly<Record<string, readonly string[]>> = {
    'machines/wrong.ts': ['../src/clock.ts', 'node:fs', 'hono', '../projections/history.ts'],
    'machines/node/wrong.ts': ['../../src/clock.ts', '../../projections/history.ts', 'pino'],
    'projections/wrong.ts': ['../src/fleet.ts', 'node:crypto', 'zod'],
    'src/store/wrong.ts': ['../fleet.ts', '../../machines/node/machine.ts'],
    'src/bmc/wrong.ts': ['../effects/job.ts', '../drivers/driver.ts', '../../machines/recorded.ts'],
  }
  const ALLOWED: Readonly<Record<string, readonly string[]>> = {
    'machines/right.ts': ['xstate', 'zod', './node/machine.ts'],
    'machines/node/right.ts': ['./phase.ts', '../recorded.ts', 'xstate'],
    'projections/right.ts': ['../machines/node/machine.ts', './history.ts'],
    'src/store/right.ts': ['./port.ts', 'node:sqlite'],
    'src/bmc/right.ts': ['../clock.ts', './port.ts', 'zod'],
  }

  test('are enforced by the linter: an import that is wrong is found, one that is right is not', async (t) => {
    const dir = temporaryDirectory(t)
    const put = (path: string, imports: readonly string[]) => {
      mkdirSync(dirname(join(dir, path)), { recursive: true })
      const lines = imports.map((from, i) => `import { a as a${i} } from '${from}'`)
      writeFileSync(join(dir, path), `${lines.join('\n')}\nexport const all = [${imports.map((_, i) => `a${i}`)}]\n`)
    }
    copyFileSync(join(ROOT, 'biome.json'), join(dir, 'biome.json'))
    for (const [path, imports] of [...Object.entries(FORBIDDEN), ...Object.entries(ALLOWED)]) put(path, imports)
    const biome = join(ROOT, 'node_modules', '.bin', 'biome')
    assert.ok(existsSync(biome))
    const asked = ['lint', '--only=style/noRestrictedImports', '--reporter=json', '--max-diagnostics=none', dir]
    const { stdout } = await promisify(execFile)(biome, asked, { cwd: dir }).catch((error: { stdout: string }) => error)
    const report = JSON.parse(stdout) as { diagnostics: { category: string; location: { path: string } }[] }
    const count = new Map<string, number>()
    for (const { category, location } of report.diagnostics) {
      assert.equal(category, 'lint/style/noRestrictedImports')
      const path = /(machines|projections|src)\/.*/.exec(location.path)?.[0] ?? ''
      count.set(path, (count.get(path) ?? 0) + 1)
    }
    const expected = Object.entries(FORBIDDEN).map(([path, imports]) => [path, imports.length] as const)
    assert.deepEqual([...count].sort(), expected.sort())
  })
})
