# shellcheck shell=sh
# Sourced by the agent: the inventory, all of it from /sys and /proc.

inventory() {
  dmi=/sys/class/dmi/id
  read -r uptime _ </proc/uptime
  firmware=bios
  [ ! -d /sys/firmware/efi ] || firmware=uefi
  printf '{"agent":"1","serial":%s,"uuid":%s,"vendor":%s,"product":%s,"bios_version":%s,"firmware":"%s","arch":"%s",' \
    "$(string "$(first_line $dmi/product_serial)")" "$(string "$(first_line $dmi/product_uuid)")" \
    "$(string "$(first_line $dmi/sys_vendor)")" "$(string "$(first_line $dmi/product_name)")" \
    "$(string "$(first_line $dmi/bios_version)")" $firmware "$(uname -m)"
  processors
  memory
  printf '"nics":['
  each nic /sys/class/net
  printf '],"disks":['
  each drive /sys/block
  printf '],"pci":['
  each pci_device /sys/bus/pci/devices
  printf '],"boot_nic":%s,"ip":%s,"uptime_s":%s,"tools":[' \
    "$(string "$(first_line "/sys/class/net/$(cat /run/nic)/address")")" "$(string "$(cat /run/ip)")" "$uptime"
  each tool /usr/bin /usr/sbin
  printf ']}\n'
}

# each <printer> <folder>...: what the printer says of every entry, with commas between; it says nothing of what does not count.
each() {
  printer=$1 comma=
  shift
  for folder; do
    for entry in "$folder"/*; do
      item=$("$printer" "$entry")
      [ -n "$item" ] || continue
      printf '%s%s' "$comma" "$item"
      comma=,
    done
  done
}

processors() {
  awk -F '[ \t]*: ' '
    $1 == "processor" { cpus++ }
    $1 == "model name" { model = $2 }
    $1 == "physical id" { socket = $2 }
    $1 == "core id" { core[socket "/" $2] = 1 }
    END {
      for (one in core) cores++
      gsub(/[^ -~]|[\\"]/, "", model)
      printf "\"cpus\":%d,\"cores\":%d,\"cpu_model\":\"%s\",", cpus, cores ? cores : cpus, model
    }' /proc/cpuinfo
}

# The firmware knows what is plugged in (SMBIOS type 17, memory device); the kernel only what it was given.
memory() {
  mib=$(smbios_memory_mib) source=smbios
  [ "${mib:-0}" -gt 0 ] || mib=$(($(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024)) source=meminfo
  printf '"memory_mib":%s,"memory_source":"%s",' "$mib" $source
}

# @see SMBIOS 3.6 §6.1.2 structure header, §7.18 Memory Device: size at 0Ch, 7FFFh means "see the extended size at 1Ch"
smbios_memory_mib() {
  od -An -v -tu1 /sys/firmware/dmi/tables/DMI 2>/dev/null | awk '
    { for (i = 1; i <= NF; i++) byte[n++] = $i }
    END {
      for (at = 0; at + 4 <= n && byte[at + 1] >= 4; at = next_at) {
        if (byte[at] == 17) {
          size = byte[at + 12] + 256 * byte[at + 13]
          if (size == 32767) mib += byte[at + 28] + 256 * byte[at + 29] + 65536 * byte[at + 30] + 16777216 * (byte[at + 31] % 128)
          else if (size == 65535) mib += 0
          else if (size >= 32768) mib += int((size - 32768) / 1024)
          else mib += size
        }
        next_at = at + byte[at + 1]
        while (next_at + 1 < n && (byte[next_at] || byte[next_at + 1])) next_at++
        next_at += 2
      }
      print mib + 0
    }'
}

nic() {
  [ -e "$1/device" ] || return # lo, bridges, tunnels
  carrier=false
  [ "$(first_line "$1/carrier")" != 1 ] || carrier=true
  speed=$(first_line "$1/speed")
  case $speed in '' | -*) speed=null ;; esac
  driver=$(readlink "$1/device/driver")
  printf '{"name":%s,"mac":%s,"carrier":%s,"driver":%s,"speed_mbps":%s}' "$(string "${1##*/}")" \
    "$(string "$(first_line "$1/address")")" $carrier "$(string "${driver##*/}")" "$speed"
}

drive() {
  name=${1##*/}
  case $name in loop* | ram* | zram* | sr* | fd* | dm-* | md*) return ;; esac
  [ "$(first_line "$1/size")" -gt 0 ] && [ "$(first_line "$1/removable")" != 1 ] || return # USB sticks, virtual media
  [ "$(first_line "$1/hidden")" != 1 ] || return
  rotational=false discard=false
  [ "$(first_line "$1/queue/rotational")" != 1 ] || rotational=true
  [ "$(first_line "$1/queue/discard_max_bytes")" = 0 ] || discard=true
  case $(readlink -f "$1") in
    */usb*) bus=usb ;;
    */nvme*) bus=nvme ;;
    */ata[0-9]*) bus=ata ;;
    */host[0-9]*) bus=scsi ;;
    */virtio[0-9]*) bus=virtio ;;
    */mmc*) bus=mmc ;;
    *) bus=other ;;
  esac
  printf '{"name":%s,"bytes":%s,"rotational":%s,"serial":%s,"model":%s,"bus":"%s","discard":%s,"sector_bytes":%s}' \
    "$(string "$name")" "$(disk_bytes "$name")" $rotational "$(string "$(disk_serial "$name")")" \
    "$(string "$(first_line "$1/device/model")")" $bus $discard "$(first_line "$1/queue/logical_block_size")"
}

pci_device() {
  vendor=$(first_line "$1/vendor") device=$(first_line "$1/device") class=$(first_line "$1/class")
  printf '{"slot":"%s","vendor":"%s","device":"%s","class":"%s"}' "${1##*/}" "${vendor#0x}" "${device#0x}" "${class#0x}"
}

tool() {
  case ${1##*/} in stress-ng | fio | nvme | hdparm | zstd) printf '"%s"' "${1##*/}" ;; esac
}
