/** What a rack boots and deploys: the ramdisk and the demo image, made by their recipes and kept in .cache/. */
import { join, resolve } from 'node:path'
import { buildDemoImage, type DemoImage, type ImageOptions } from './image.ts'
import { run } from './run.ts'

const BUILD_DEADLINE_MS = 1_200_000
const CACHE = resolve(import.meta.dirname, '../../.cache/ramdisk')
const BUILD = resolve(import.meta.dirname, '../../deploy/ramdisk/build.sh')
const FLAVOUR = 'cloud-amd64'

export type Artefacts = {
  readonly ramdisk_dir: string
  /** The folder that file: images may come from. */
  readonly image_dir: string
  readonly image: DemoImage
}

/** May be called by several processes at once: one builds, the others wait for it. */
export const labArtefacts = async (options: ImageOptions = {}): Promise<Artefacts> => {
  await run([BUILD, '--flavour', FLAVOUR, '--cache', CACHE], { deadline_ms: BUILD_DEADLINE_MS })
  return { ramdisk_dir: join(CACHE, FLAVOUR), image_dir: CACHE, image: await buildDemoImage(CACHE, options) }
}
