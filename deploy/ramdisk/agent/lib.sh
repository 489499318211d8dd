# shellcheck shell=sh
# Sourced by every program of the agent: the console, the kernel command line, JSON, and how a job fails.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin LC_ALL=C
job=/run/order # of the order that runs: args/<key>, meter, log, result.json

# say <words>: a line on every console, for who stands in front of the machine or reads its serial port.
say() {
  read -r uptime _ </proc/uptime
  read -r consoles </sys/class/tty/console/active
  for console in ${consoles:-console}; do echo "bloomery $uptime $*" >"/dev/$console"; done
}

# parameter <name>: of the kernel command line.
parameter() {
  for word in $(cat /proc/cmdline); do
    case $word in "$1"=*) echo "${word#*=}" && return ;; esac
  done
}

# string <text>: as JSON. Firmware fills serial numbers with blanks and worse: what is not printable ASCII is left out.
string() {
  case $1 in
    *[!A-Za-z0-9\ ._:/-]* | *' ' | ' '*)
      printf '"%s"' "$(printf %s "$1" | tr -cd '\040-\176' | sed 's/^ *//; s/ *$//; s/[\\"]/\\&/g')" ;;
    *) printf '"%s"' "$1" ;; # nearly always, and without starting a process
  esac
}

# first_line <file>: empty where there is none.
first_line() {
  line=
  read -r line 2>/dev/null <"$1"
  printf %s "$line"
}

centiseconds() { # since the machine started
  read -r now _ </proc/uptime
  echo "${now%.*}${now#*.}"
}

# arg <key> [default]: of the order. Values are read from files and never become part of a program.
arg() { if [ -f "$job/args/$1" ]; then cat "$job/args/$1"; else echo "${2-}"; fi; }

# number <key> [default]: an argument that must be digits, as no other text may reach shell arithmetic.
number() {
  value=$(arg "$@")
  case $value in '' | *[!0-9]*) fail 2 "the order's $1 is not a number: $value" ;; esac
  echo "$value"
}

# fail <rc> <reason>: ends the job. In a $(...) it ends only that: write `x=$(number ...) || exit`.
fail() {
  rc=$1
  shift
  printf '{"reason":%s}' "$(string "$*")" >"$job/result.json"
  exit "$rc"
}

result() { printf '{%s}' "$1" >"$job/result.json"; }

# disk_arg: the name of the order's disk, which must be a disk of this machine.
disk_arg() {
  disk=$(arg disk)
  case $disk in '' | *[!a-z0-9]*) fail 2 "the order names no disk: $disk" ;; esac
  [ -b "/dev/$disk" ] && [ -e "/sys/block/$disk" ] || fail 2 "this machine has no disk $disk"
  echo "$disk"
}

# doomed_disk: a disk_arg whose serial number is the one the order means. Names move between boots, serial numbers do not.
doomed_disk() {
  disk=$(disk_arg) || exit
  actual=$(disk_serial "$disk")
  [ "$actual" = "$(arg serial)" ] || fail 5 "$disk has the serial number '$actual', the order is for '$(arg serial)'"
  echo "$disk"
}

disk_bytes() { echo $(($(cat "/sys/block/$1/size") * 512)); } # sysfs counts in 512 bytes whatever the sector

disk_serial() {
  at=/sys/block/$1
  if [ -e "$at/serial" ]; then text=$(cat "$at/serial") # virtio
  elif [ -e "$at/device/vpd_pg80" ]; then text=$(tail -c +5 "$at/device/vpd_pg80" | tr -cd '\040-\176') # SCSI and ATA
  else text=$(cat "$at/device/serial" 2>/dev/null); fi # NVMe
  printf %s "$text" | tr -cd '\040-\176' | sed 's/^ *//; s/ *$//'
}

# reread <disk>: its partition table and none of its cached blocks. Fails harmlessly while the disk is in use.
reread() {
  sync
  blockdev --flushbufs "/dev/$1" 2>/dev/null
  blockdev --rereadpt "/dev/$1" 2>/dev/null
  echo 7 >/proc/sys/vm/drop_caches # 3: pages and inodes; 4: without telling the console
}

# metered <fd> <start> <total> <command>...: runs it; its progress is how far it has come in the file behind that descriptor.
metered() {
  fd=$1 start=$2 total=$3
  shift 3
  # shellcheck disable=SC2016 # expanded by that shell, whose process the command then takes over
  sh -c 'echo "bytes /proc/$$/fdinfo/$1 $2 $3" >"$4"; shift 4; exec "$@"' sh "$fd" "$start" "$total" "$job/meter" "$@"
}

# timed <seconds> <command>...: runs it; its progress is the time.
timed() {
  echo "seconds $(centiseconds) - $1" >"$job/meter"
  shift
  "$@"
}
