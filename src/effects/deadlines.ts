/** Deadlines of steps. */
/** How long each kind of step may take once it has begun, in seconds. Settable, since one site's POST is another's eternity. */
export const DEFAULT_DEADLINES_S = {
  bmc: 120,
  power: 300,
  soft_off: 600,
  /** POST of a large server takes many minutes, and Cloudflare has seen hours. */
  ramdisk_boot: 1800,
  inspect: 300,
  image: 3600,
  write: 7200,
  config_drive: 300,
  tenant_boot: 1800,
  wipe: 1800,
  /** Overwriting a large rotational disk takes days. */
  erase: 4 * 86_400,
  /** A burn-in step is given its own duration and this much more. */
  burn_in_slack: 1800,
} as const
export type Deadlines = Readonly<Record<keyof typeof DEFAULT_DEADLINES_S, number>>
