/** What ipmi_sim is told to be: one management controller with two sensors, an event log and a FRU. */

/** @param temperatureFile holds the temperature in degrees Celsius; ipmi_sim reads it four times a second */
export function emulatorCommands(temperatureFile: string, serial: string): string {
  const states = '000111111000000'
  const events = `enable scanning per-state ${states} ${states} ${states} ${states}`
  return `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
# sensor 0 has to be the watchdog
sensor_add 0x20 0 0 35 0x6f event-only
sensor_set_event_support 0x20 0 0 enable scanning per-state 000000000001111 000000000000000 000000000001111 000000000000000
sensor_add 0x20 0 1 0x01 0x01 poll 250 file "${temperatureFile}"
sensor_set_threshold 0x20 0 1 settable 111000 0x60 0x55 0x50 00 00 00
sensor_set_event_support 0x20 0 1 ${events}
sensor_add 0x20 0 2 0x04 0x01
sensor_set_value 0x20 0 2 60 0
sensor_set_threshold 0x20 0 2 settable 000111 00 00 00 0x05 0x0a 0x14
sensor_set_event_support 0x20 0 2 ${events}
mc_add_fru_data 0x20 0 256 data ${fru(serial).map(hex).join(' ')}
mc_enable 0x20
`
}

/** Sensor data records in the language of \`sdrcomp\`: the controller, a temperature in °C, a fan in hundreds of RPM. */
export function sensorRecords(): string {
  const controller = `sdr type 18
  device_slave_address 0x20
  device_channel_number 0
  chassis true
  fru_inventory true
  sel true
  sdr true
  sensor true
  entity_id system_board
  entity_instance 1
  id_string "BMC"
endsdr
`
  const temperature = sensorRecord('CPU Temp', 1, 'Temperature', 'processor', 'degrees_C', 1, [
    ...['unr_thresh 0x60', 'uc_thresh 0x55', 'unc_thresh 0x50', 'assert_ucgh true', 'assert_uncgh true'],
    ...['return_unr true', 'return_uc true', 'return_unc true'],
    ...['unr_thrsh_readable true', 'uc_thrsh_readable true', 'unc_thrsh_readable true'],
  ])
  const fan = sensorRecord('Fan 1', 2, 'Fan', 'fan_cooling_device', 'RPM', 100, [
    ...['lnr_thresh 5', 'lc_thresh 10', 'lnc_thresh 20', 'assert_lcgl true', 'assert_lncgl true'],
    ...['return_lnr true', 'return_lc true', 'return_lnc true'],
    ...['lnr_thrsh_readable true', 'lc_thrsh_readable true', 'lnc_thrsh_readable true'],
  ])
  return controller + temperature + fan
}

function sensorRecord(
  name: string,
  number: number,
  type: string,
  entity: string,
  unit: string,
  factor: number,
  thresholds: readonly string[],
): string {
  return `sdr type 1
  sensor_owner_id 0x20
  sensor_owner_lun 0
  channel_number 0
  sensor_number ${number}
  entity_id ${entity}
  entity_instance 1
  sensor_type ${type}
  init_scanning true
  init_sensor_type true
  default_sensor_scan_on true
  event_reading_type_code 1
  analog_data_format unsigned
  rate_unit none
  modifier_unit none
  percentage false
  base_unit ${unit}
  modifier_unit_code unspecified
  linearization linear
  m ${factor}
  tolerance 0
  b 0
  accuracy 1
  accuracy_exp 0
  sensor_direction input
  r_exp 0
  b_exp 0
  sensor_maximum 255
  sensor_minimum 0
  sensor_threshold_access settable
  ${thresholds.join('\n  ')}
  id_string "${name}"
endsdr
`
}

const hex = (byte: number) => `0x${byte.toString(16)}`

/** @see IPMI Platform Management FRU Information Storage Definition 1.0 §8 (header), §11 (board), §12 (product) */
function fru(serial: string): readonly number[] {
  const ENGLISH = 0x19
  const board = fruArea([ENGLISH, 0, 0, 0], ['Bloomery', 'Rack board', serial, 'RB-1', ''])
  const product = fruArea([ENGLISH], ['Bloomery', 'Rack', 'R-1', '1', serial, '', ''])
  return [...withSum([1, 0, 0, 1, 1 + board.length / 8, 0, 0]), ...board, ...product]
}

function fruArea(head: readonly number[], fields: readonly string[]): readonly number[] {
  const END_OF_FIELDS = 0xc1
  const ASCII = 0xc0
  const body = [...head, ...fields.flatMap((text) => [ASCII | text.length, ...Buffer.from(text)]), END_OF_FIELDS]
  const eighths = Math.ceil((body.length + 3) / 8) // version, length and sum are counted in
  const padding = new Array<number>(eighths * 8 - body.length - 3).fill(0)
  return withSum([1, eighths, ...body, ...padding])
}

/** With a last byte that makes the sum of all zero. */
const withSum = (bytes: readonly number[]) => [...bytes, -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff]
