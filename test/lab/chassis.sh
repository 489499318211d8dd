#!/bin/sh
# The hand of a node's BMC: ipmi_sim runs it as "chassis.sh <node directory> get|set <what> [<value>]..." to read and to change the
# power and the boot device. Nothing else starts or ends the node's QEMU. ipmi_sim runs one at a time and reads standard output to its
# end, so that whatever stays behind must not keep it open.
# shellcheck disable=SC1010 # the word done below is an outcome
node=$1 verb=$2
shift 2

# record <what> <detail> <outcome>: one line of bmc.jsonl; outcome is done, already, ignored or failed
record() { printf '{"at":"%s","what":"%s","detail":"%s","outcome":"%s"}\n' "$(date -u +%FT%T.%3NZ)" "$1" "$2" "$3" >>"$node/bmc.jsonl"; }

# A process of that number is only ours if it names our directory; one that has ended but is not yet reaped has no command line.
running() { pid=$(cat "$node/qemu.pid" 2>/dev/null) && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$node/qemu.pid"; }

# A process that ends loses its command line first, and its tap, sockets and disk locks a moment later.
exiting() {
  state=$(sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -c 1)
  case $state in '' | Z | X) return 1 ;; esac
  [ -z "$(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline")" ]
}

# gone <pid>: waits until it holds nothing any more, for 5 s at most
gone() {
  tries=0
  while { running || exiting "$1"; } && [ $tries -lt 250 ]; do sleep 0.02 && tries=$((tries + 1)); done
  ! running
}

override() { cat "$node/boot" 2>/dev/null || echo default; }

# The firmware reads the boot order at a machine's start, so this is for the guest's own reboots: they go to the disk. Disks have the
# places 1, 2, ...; the NIC goes behind them.
disk_first() {
  monitor '{"execute":"qom-set","arguments":{"path":"/machine/peripheral/nic0","property":"bootindex","value":99}}'
}

# monitor <QMP command>
monitor() {
  printf '%s\n' '{"execute":"qmp_capabilities"}' "$1" |
    socat -t1 -T10 - "UNIX-CONNECT:$node/monitor.sock" >>"$node/monitor.log" 2>&1
}

take_override() {
  boot=$(override)
  rm -f "$node/boot" # one shot: the boot that follows uses it up, as the standard has it
  if [ -e "$node/forgets-boot" ]; then boot=default; fi
}

start() {
  gone "$(cat "$node/qemu.pid" 2>/dev/null || echo 0)" # one that switched itself off just now
  take_override
  case $boot in pxe) place=0 ;; *) place=99 ;; esac
  sed "s/@NIC_PLACE@/$place/" "$node/qemu.args" | xargs -d '\n' qemu-system-x86_64 >>"$node/qemu.log" 2>&1 || return 1
  if [ $place = 0 ]; then disk_first; fi
}

end() {
  kill -KILL "$pid" # as a power cut: no flush, no goodbye
  gone "$pid" && rm -f "$node/qemu.pid"
}

power_on() {
  if running; then record power-on '' already && return; fi
  if start; then record power-on "$boot" done; else record power-on "$boot" failed && return 1; fi
}

power_off() {
  if ! running; then record power-off '' already && return; fi
  if end; then record power-off '' done; else record power-off '' failed && return 1; fi
}

# Not QMP's system_reset: SeaBIOS follows a warm reset with one of its own, at which a boot order for one boot would be lost.
reset() {
  if ! running; then record reset '' failed && return 1; fi
  if end && start; then record reset "$boot" done; else record reset '' failed && return 1; fi
}

soft_off() {
  if ! running; then record soft-off '' already && return; fi
  monitor '{"execute":"system_powerdown"}'
  record soft-off '' done
}

# unless_lying <what> <command>: the BMC that says yes and does nothing
unless_lying() { if [ -e "$node/lies" ]; then record "$1" '' ignored; else "$2"; fi; }

case $verb in
get)
  for what; do
    case $what in
    power) if running; then echo power:1; else echo power:0; fi ;;
    boot) echo "boot:$(override)" ;;
    *) exit 1 ;;
    esac
  done
  ;;
set)
  while [ $# -ge 2 ]; do
    case $1:$2 in
    power:1) unless_lying power-on power_on || exit 1 ;;
    power:*) unless_lying power-off power_off || exit 1 ;;
    reset:*) unless_lying reset reset || exit 1 ;;
    shutdown:*) unless_lying soft-off soft_off || exit 1 ;;
    boot:none) rm -f "$node/boot" && record boot-device none done ;;
    boot:*) echo "$2" >"$node/boot" && record boot-device "$2" done ;; # ipmitool's "disk" arrives as "default"
    identify:*) record identify "$2" done ;;
    *) exit 1 ;;
    esac
    shift 2
  done
  ;;
*) exit 1 ;;
esac
