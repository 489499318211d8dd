/** What a rack boots and deploys: the ramdisk and the demo image, made by their recipes and kept in .cache/. */
import { readdirSync, statSync, utimesSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { buildDemoImage, type DemoImage, type ImageOptions } from './image.ts'
import { run } from './run.ts'

const BUILD_DEADLINE_MS = 1_200_000
/** Asking apt whether anything newer is there takes seconds; so old a ramdisk is asked about. */
const TRUSTED_FOR_MS = 86_400_000
const CACHE = resolve(import.meta.dirname, '../../.cache/ramdisk')
const RECIPE = resolve(import.meta.dirname, '../../deploy/ramdisk')
const FLAVOUR = 'cloud-amd64'

export type Artefacts = {
  readonly ramdisk_dir: string
  /** The folder that file: images may come from. */
  readonly image_dir: string
  readonly image: DemoImage
}

/** May be called by several processes at once: one builds, the others wait for it. */
export const labArtefacts = async (options: ImageOptions = {}): Promise<Artefacts> => {
  const ramdisk_dir = join(CACHE, FLAVOUR)
  const manifest = join(ramdisk_dir, 'manifest.json')
  if (!isFresh(manifest)) {
    const asked_at = new Date()
    await run([join(RECIPE, 'build.sh'), '--flavour', FLAVOUR, '--cache', CACHE], { deadline_ms: BUILD_DEADLINE_MS })
    utimesSync(manifest, asked_at, asked_at)
  }
  return { ramdisk_dir, image_dir: CACHE, image: await buildDemoImage(CACHE, options) }
}

/** Whether it was made lately, and after the last change of the recipe. */
const isFresh = (manifest: string): boolean => {
  const made_ms = statSync(manifest, { throwIfNoEntry: false })?.mtimeMs ?? 0
  const changes = readdirSync(RECIPE, { recursive: true }).map((name) => statSync(join(RECIPE, String(name))).mtimeMs)
  return Date.now() - made_ms < TRUSTED_FOR_MS && made_ms > Math.max(...changes)
}
