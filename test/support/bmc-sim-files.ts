/** The files that `ipmi_sim` reads: a LAN channel with users, a chassis program, two sensors and their records. */

export type LanConfig = {
  readonly dir: string
  readonly address: string
  readonly port: number
  readonly users: Readonly<
    Record<string, { readonly id: number; readonly password: string; readonly privilege: string }>
  >
}

export function lanConfig({ dir, address, port, users }: LanConfig): string {
  const auths = ['user', 'operator', 'admin'].map((level) => `allowed_auths_${level} none md2 md5 straight`)
  const accounts = Object.entries(users).map(
    ([name, { id, password, privilege }]) =>
      `user ${id} true "${name}" "${password}" ${privilege} 10 none md2 md5 straight`,
  )
  return `name "bmc"
set_working_mc 0x20
  startlan 1
    addr ${address} ${port}
    priv_limit admin
    ${auths.join('\n    ')}
    guid ${GUID.replaceAll('-', '')}
  endlan
  chassis_control "${dir}/chassis ${dir}"
  user 1 false "" "" user 10 none md2 md5 straight
  ${accounts.join('\n  ')}
`
}

export const GUID = '5b100e42-0000-4000-8000-0123456789ab'

/**
 * Called as `chassis <dir> get <what>…` or `chassis <dir> set <what> <value>…`, one at a time; shell built-ins only, so that it is
 * quick. A failure reaches the client as "Unspecified error", whatever its reason.
 */
export const CHASSIS_PROGRAM = `#!/bin/sh
dir=$1 verb=$2
shift 2
put() { echo "$2" >"$dir/$1"; }
take() { read -r value <"$dir/$1"; }
power_to() {
  take mode; mode=$value
  take power; now=$value
  case $mode in
    ignored) return 0 ;;
    refused) return 1 ;;
    strict) [ "$now" != "$1" ] || return 1 ;;
    dies) take pid; kill -KILL "$value"; return 1 ;;
  esac
  take late
  [ "$value" = 0 ] || put seen_before "$now"
  put power "$1"
}
show_power() {
  take late
  if [ "$value" -gt 0 ] && [ -e "$dir/seen_before" ]; then
    put late $((value - 1))
    take seen_before
  else
    take power
  fi
  echo "power:$value"
}
[ "$verb" = get ] || echo "$verb $*" >>"$dir/commands"
while [ $# -gt 0 ]; do
  what=$1
  shift
  if [ "$verb" = get ]; then
    if [ "$what" = power ]; then show_power; else take "$what"; echo "$what:$value"; fi
    continue
  fi
  case $what in
    power) power_to "$1" || exit 1 ;;
    reset) take power; [ "$value" = 1 ] || exit 1 ;;
    shutdown) take soft_off; [ "$value" = ignored ] || power_to 0 || exit 1 ;;
    boot | identify) put "$what" "$1" ;;
    *) exit 1 ;;
  esac
  shift
done
`

/** Sensor 0 must be the watchdog. The temperature is read from a file four times a second; crossing a threshold makes SEL entries. */
export function emulatorCommands(temperatureFile: string): string {
  return `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 0 35 0x6f event-only
sensor_set_event_support 0x20 0 0 enable scanning per-state 000000000001111 000000000000000 000000000001111 000000000000000
sensor_add 0x20 0 1 0x01 0x01 poll 250 file "${temperatureFile}"
sensor_set_threshold 0x20 0 1 settable 111000 0x60 0x55 0x50 00 00 00
sensor_set_event_support 0x20 0 1 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
sensor_add 0x20 0 2 0x04 0x01
sensor_set_value 0x20 0 2 60 0
sensor_set_event_support 0x20 0 2 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
mc_enable 0x20
`
}
