/** Every file beside this one that is a driver, by its name: a new vendor is a new file and nothing else. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Driver } from './driver.ts'

export type Drivers = ReadonlyMap<string, Driver>

/** Files here that are no drivers. */
const ASIDE = new Set(['driver.ts', 'registry.ts'])

const isDriver = (file: string) => file.endsWith('.ts') && !ASIDE.has(file)

/** Loads the drivers of this folder, and of a folder of the operator's own. */
export const loadDrivers = async (extra_folder?: string): Promise<Drivers> => {
  const folders = extra_folder ? [import.meta.dirname, extra_folder] : [import.meta.dirname]
  const found = await Promise.all(
    folders.map(async (folder) =>
      Promise.all(
        (await readdir(folder)).filter(isDriver).map(async (file) => {
          const module = (await import(pathToFileURL(join(folder, file)).href)) as { default?: Driver }
          if (!module.default) throw new Error(`${file}: a driver is the default export of its file`)
          return [file.slice(0, -'.ts'.length), module.default] as const
        }),
      ),
    ),
  )
  return new Map(found.flat())
}
