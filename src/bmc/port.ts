/** What the service asks of a node's management controller (BMC), whatever the vendor and the protocol. */

export type PowerState = 'on' | 'off'

export interface Power {
  /**
   * Reads the chassis power.
   * @throws {BmcError}
   * @see IPMI 2.0 §28.2 Get Chassis Status; Redfish ComputerSystem.PowerState
   */
  state(signal: AbortSignal): Promise<PowerState>
  /**
   * Asks for a power state and returns once the controller has accepted it, not once the chassis is there.
   * Safe to repeat: asking for the state it is in does nothing. Never a toggle.
   * @throws {BmcError}
   * @see IPMI 2.0 §28.3 Chassis Control
   */
  set(target: PowerState, signal: AbortSignal): Promise<void>
  /** Asks the operating system to shut down (ACPI); it may take minutes or ignore it. @throws {BmcError} */
  softOff(signal: AbortSignal): Promise<void>
  /** Hard reset of a node that is on. Not safe to repeat. @throws {BmcError} `refused` when the node is off */
  reset(signal: AbortSignal): Promise<void>
}

/** `none` is "no override": the node follows its own boot order. */
export const BOOT_DEVICES = ['none', 'pxe', 'disk', 'cdrom', 'bios'] as const
export type BootDevice = (typeof BOOT_DEVICES)[number]

export interface Management {
  /** The override that the next boot will follow. @throws {BmcError} @see IPMI 2.0 §28.13 Get System Boot Options, parameter 5 */
  bootDevice(signal: AbortSignal): Promise<BootDevice>
  /** Overrides the boot device. Safe to repeat. @throws {BmcError} @see IPMI 2.0 §28.12 Set System Boot Options */
  setBootDevice(device: BootDevice, how: BootOverride, signal: AbortSignal): Promise<void>
  /** Blinks the identify light for that long; 0 ends it. @throws {BmcError} */
  identify(duration_s: number, signal: AbortSignal): Promise<void>
  /** Every sensor that can be read. @throws {BmcError} */
  sensors(signal: AbortSignal): Promise<readonly Sensor[]>
  /** The system event log, oldest first. @throws {BmcError} @see IPMI 2.0 §31 */
  systemEventLog(signal: AbortSignal): Promise<readonly SelEntry[]>
  /** Who answers at the controller's address. @throws {BmcError} @see IPMI 2.0 §20.1 Get Device ID */
  info(signal: AbortSignal): Promise<BmcInfo>
}

export type BootOverride = { readonly persistent: boolean; readonly firmware: 'bios' | 'uefi' }
export type Sensor = { readonly name: string; readonly value: number; readonly unit: string; readonly status: string }
export type SelEntry = { readonly id: string; readonly at: string; readonly sensor: string; readonly event: string }
export type BmcInfo = {
  readonly manufacturer: string
  readonly product: string
  readonly firmware: string
  readonly protocol: string
  readonly guid: string | null
}

/** A connection to one node's controller. Calls to one controller go one at a time; the implementation sees to it. */
export interface Bmc {
  readonly power: Power
  readonly management: Management
}

/**
 * Why a controller did not do what it was asked, as a closed set.
 * `no-answer`: nothing came back (worth another try). `wrong-credentials`: it answered, and does not know this user or
 * password. `refused`: it understood and said no. `unsupported`: it has no such command.
 */
export const BMC_ERROR_CODES = ['no-answer', 'wrong-credentials', 'refused', 'unsupported'] as const
export type BmcErrorCode = (typeof BMC_ERROR_CODES)[number]

/** The message is for an operator: what was asked of which address, what came back, what to do about it. */
export class BmcError extends Error {
  override readonly name = 'BmcError'
  readonly code: BmcErrorCode
  constructor(code: BmcErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
