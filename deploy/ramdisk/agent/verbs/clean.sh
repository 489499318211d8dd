# shellcheck shell=sh
# Sourced by the job: makes a disk forget, its metadata (wipe) or all of it (erase).
MIB=1048576
END_MIB=16                             # of each end of a disk: partition tables, RAID, LVM and ZFS labels
MIRRORS='67108864 274877906944'        # where btrfs keeps copies of its superblock: 64 MiB, 256 GiB
SAMPLES=64
SAMPLE_BYTES=4096

verb_wipe() {
  disk=$(doomed_disk) || exit
  size=$(disk_bytes "$disk")
  wiped=0
  for partition in "/sys/block/$disk/$disk"*; do # sysfs counts in sectors of 512 bytes
    [ -e "$partition/partition" ] || continue
    start=$(($(cat "$partition/start") * 512)) bytes=$(($(cat "$partition/size") * 512))
    zero_ends $start $bytes $MIB
  done
  zero_ends 0 "$size" $((END_MIB * MIB))
  for mirror in $MIRRORS; do [ $((mirror + MIB)) -gt "$size" ] || zero "$mirror" $MIB; done
  reread "$disk"
  result "\"method\":\"metadata\",\"bytes\":$wiped,\"serial\":$(string "$(disk_serial "$disk")")"
}

# zero_ends <start> <bytes> <of each end>: of a stretch of the disk.
zero_ends() {
  length=$3
  [ "$length" -le "$2" ] || length=$2
  zero "$1" "$length"
  zero $(($1 + $2 - length)) "$length"
}

zero() {
  dd if=/dev/zero of="/dev/$disk" bs=$MIB seek="$1" count="$2" iflag=count_bytes oflag=seek_bytes conv=notrunc,fsync ||
    fail 6 "cannot write $2 bytes at $1 of $disk"
  wiped=$((wiped + $2))
}

verb_erase() {
  disk=$(doomed_disk) || exit
  size=$(disk_bytes "$disk") wiped=0
  method=$(arg method auto)
  case $method in
    auto) method=$(best_method) ;;
    discard | nvme | ata | overwrite) ;;
    *) fail 2 "method must be auto, discard, nvme, ata or overwrite, not $method" ;;
  esac
  say "erasing all of $disk: $method"
  "erase_$method" || fail 6 "$method failed on $disk: $(tail -n 1 "$job/log" | cut -c 1-200)"
  reread "$disk"
  sample
  # Discarded blocks may read as anything (a disk that keeps them); whoever asked for auto wants them gone.
  if [ "$(arg method auto)" = auto ] && [ "$method" != overwrite ] && [ $zero_samples -lt $SAMPLES ]; then
    say "$method left data on $disk: overwriting"
    method=overwrite
    erase_overwrite || fail 6 "overwrite failed on $disk"
    reread "$disk"
    sample
  fi
  result "\"method\":\"$method\",\"bytes\":$size,\"serial\":$(string "$(disk_serial "$disk")"),\"zero_samples\":$zero_samples,\"samples\":$SAMPLES"
}

best_method() {
  case $disk in nvme*) command -v nvme >/dev/null && echo nvme && return ;; esac
  if ata_can_erase; then echo ata
  elif [ "$(cat "/sys/block/$disk/queue/discard_max_bytes")" -gt 0 ]; then echo discard
  else echo overwrite; fi
}

erase_discard() { timed 0 blkdiscard "/dev/$disk"; }

erase_nvme() { timed 0 nvme format "/dev/$disk" --ses=1 --force; } # 1: user data erase; NVM command set §5.14

ata_can_erase() {
  command -v hdparm >/dev/null && hdparm -I "/dev/$disk" 2>/dev/null |
    awk '/^Security:/ { inside = 1 } inside && /^\t\tsupported$/ { can = 1 } inside && /^\tnot\tfrozen$/ { thawed = 1 } END { exit !(can && thawed) }'
}

# Erasing takes a password away again. Cut off in between, the disk is locked with this one: `hdparm --security-disable`.
erase_ata() {
  ata_can_erase || { echo "$disk has no ATA security, or the firmware froze it" && return 1; }
  hdparm --user-master u --security-set-pass bloomery "/dev/$disk" &&
    timed 0 hdparm --user-master u --security-erase bloomery "/dev/$disk"
}

# direct: through the page cache the progress would run ahead by gigabytes, and the end take minutes. What is left over after
# the last whole MiB goes the other way.
erase_overwrite() {
  metered 1 0 "$size" dd if=/dev/zero of="/dev/$disk" bs=$MIB count=$((size / MIB)) oflag=direct conv=notrunc,fsync &&
    zero $((size / MIB * MIB)) $((size % MIB))
}

# Sets zero_samples: how many of the places that were looked at, evenly spread from first to last, read as zero.
sample() {
  zero_samples=0 place=0
  head -c $SAMPLE_BYTES /dev/zero >"$job/zero"
  while [ $place -lt $SAMPLES ]; do
    at=$(((size - SAMPLE_BYTES) / (SAMPLES - 1) * place / SAMPLE_BYTES * SAMPLE_BYTES))
    [ $place -lt $((SAMPLES - 1)) ] || at=$((size - SAMPLE_BYTES))
    dd if="/dev/$disk" bs=$SAMPLE_BYTES skip=$at count=1 iflag=skip_bytes 2>/dev/null | cmp -s - "$job/zero" &&
      zero_samples=$((zero_samples + 1))
    place=$((place + 1))
  done
}
