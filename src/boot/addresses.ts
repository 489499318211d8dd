/**
 * An address for each known MAC: the lowest that is free when the MAC becomes known, in the order of the log, so that a
 * restart gives the same ones. (Two nodes that boot together must never be offered the same address: ADR 9.)
 */
import type { Facts } from '../../machines/node/facts.ts'

export type AddressRange = { readonly first: string; readonly last: string }

const toNumber = (address: string) => address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0)
const toAddress = (value: number) => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.')

export const openAddresses = ({ first, last }: AddressRange) => {
  const [from, to] = [toNumber(first), toNumber(last)]
  const byMac = new Map<string, number>()
  const byNumber = new Map<number, string>()
  let lowest = from

  const give = (mac: string) => {
    if (byMac.has(mac)) return
    while (byNumber.has(lowest)) lowest++
    if (lowest > to) return
    byMac.set(mac, lowest)
    byNumber.set(lowest, mac)
  }
  const free = (mac: string) => {
    const value = byMac.get(mac)
    if (value === undefined) return
    byMac.delete(mac)
    byNumber.delete(value)
    lowest = Math.min(lowest, value)
  }

  return {
    /** Called for each event of the log in turn. Says whether anything changed. */
    update(before: Facts, after: Facts, gone: boolean): boolean {
      if (before.ports === after.ports && !gone) return false
      const kept = new Set(gone ? [] : after.ports.map(({ mac }) => mac))
      for (const { mac } of before.ports) if (!kept.has(mac)) free(mac)
      for (const mac of kept) give(mac)
      return true
    },
    /** Null when the MAC is unknown, or the range was used up when it came. */
    of: (mac: string): string | null => {
      const value = byMac.get(mac)
      return value === undefined ? null : toAddress(value)
    },
    macOf: (address: string): string | null => byNumber.get(toNumber(address)) ?? null,
    all: () => [...byMac].map(([mac, value]) => ({ mac, address: toAddress(value) })),
  }
}
