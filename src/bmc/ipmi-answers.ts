/** Reads what `ipmitool` prints. Pure; the texts are those of ipmitool 1.8.19 under LC_ALL=C and TZ=UTC. */
import type { BmcInfo, BootDevice, PowerState, SelEntry, Sensor } from './port.ts'

/** Far above what any chassis has; a controller that says more is not believed. */
export const MAX_SENSORS = 2_048
export const MAX_SEL_ENTRIES = 8_192

/** Of `chassis power status`. */
export function readPower(text: string): PowerState | null {
  const state = /^Chassis Power is (on|off)$/m.exec(text)?.[1]
  return state === 'on' || state === 'off' ? state : null
}

/**
 * Of `chassis bootparam get 5`: only the device selector, bits 5..2 of the second byte. The valid bit beside it is not asked:
 * controllers clear it (or never set it) while the override is in force.
 * @returns null for a device that has no word here (floppy, diagnostic partition)
 * @see IPMI 2.0 §28.13, table 28-14, parameter 5
 */
export function readBootDevice(text: string): BootDevice | null {
  const data = /^Boot parameter data: ([0-9a-f]{4})/m.exec(text)?.[1]
  return data === undefined ? null : (SELECTORS.get((Number.parseInt(data.slice(2, 4), 16) >> 2) & 0b1111) ?? null)
}

/** 3 is the disk in safe mode, 8 a CD and 11 a disk that the controller itself presents. */
const SELECTORS: ReadonlyMap<number, BootDevice> = new Map([
  [0, 'none'],
  [1, 'pxe'],
  [2, 'disk'],
  [3, 'disk'],
  [5, 'cdrom'],
  [6, 'bios'],
  [8, 'cdrom'],
  [11, 'disk'],
])

/** Of `-c sdr elist full`. Names may hold commas and nothing is quoted, so the line is found by its number and its status. */
export function readSensors(text: string): Sensor[] {
  return [...text.matchAll(/^(.+?),(-?\d+(?:\.\d+)?),([^,\n]*),([a-z]{2,3})(?=,|$)/gm)]
    .slice(0, MAX_SENSORS)
    .map(([, name = '', value, unit = '', status = '']) => ({ name: name.trim(), value: Number(value), unit, status }))
}

/** Of `-c sel elist`: id (hexadecimal), date, time, sensor, event, direction, details. */
export function readSel(text: string): SelEntry[] {
  return text
    .split('\n')
    .map((line) => line.split(',').map((field) => field.trim()))
    .filter(([id = '', ...rest]) => /^[0-9a-f]{1,4}$/i.test(id) && rest.length >= 3)
    .slice(-MAX_SEL_ENTRIES)
    .map(([id = '', date = '', time = '', sensor = '', ...event]) => ({
      id,
      at: readTime(date, time),
      sensor,
      event: event.filter(Boolean).join(', '),
    }))
}

/** RFC 3339 where the controller knew the date; else its own words, as `Pre-Init 0000001179` (seconds since it started). */
function readTime(date: string, time: string): string {
  const [, month, day, year] = /^(\d\d)\/(\d\d)\/(?:20)?(\d\d)$/.exec(date) ?? []
  const [, clock] = /^(\d\d:\d\d:\d\d)(?: UTC)?$/.exec(time) ?? []
  return year && clock ? `20${year}-${month}-${day}T${clock}Z` : `${date} ${time}`.trim()
}

/** Of `mc info`; the GUID is asked for separately. */
export function readInfo(text: string): Omit<BmcInfo, 'guid'> {
  const field = (name: string) => new RegExp(`^${name} *: *(.*?) *$`, 'm').exec(text)?.[1] ?? ''
  const known = (name: string, id: string) => {
    const value = field(name)
    return value === '' || value.startsWith('Unknown') ? field(id) : value
  }
  return {
    manufacturer: known('Manufacturer Name', 'Manufacturer ID'),
    product: known('Product Name', 'Product ID'),
    firmware: field('Firmware Revision'),
    protocol: `IPMI ${field('IPMI Version')}`.trim(),
  }
}

/** Of `mc guid`. */
export function readGuid(text: string): string | null {
  return /^System GUID +: ([0-9a-f-]{36})$/im.exec(text)?.[1]?.toLowerCase() ?? null
}
