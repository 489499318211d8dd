# shellcheck shell=sh
# Sourced by the job: reads, writes and sums parts of a disk, for partition tables, config drives and verification.
SECTOR=512
READ_LIMIT_BYTES=1048576
WRITE_LIMIT_BYTES=134217728 # it is held in memory

verb_read() {
  disk=$(disk_arg) || exit
  place "$disk" $READ_LIMIT_BYTES
  blockdev --flushbufs "/dev/$disk"
  from_disk "$disk" "$offset" "$length" >"$job/sectors" || fail 6 "cannot read $length bytes at $offset of $disk"
  upload sectors "$job/sectors"
  result "\"sha256\":\"$(sum_of sha256 <"$job/sectors")\""
}

verb_write() {
  disk=$(disk_arg) || exit
  place "$disk" $WRITE_LIMIT_BYTES
  stream "$service/agent/data?order=$(cat "$job/id")" session >"$job/data" || fail 4 'the service did not give the data to write'
  [ "$(stat -c %s "$job/data")" = "$length" ] || fail 4 "the service gave $(stat -c %s "$job/data") bytes, not $length"
  dd if="$job/data" of="/dev/$disk" bs=65536 seek="$offset" oflag=seek_bytes conv=notrunc,fsync ||
    fail 6 "cannot write $length bytes at $offset of $disk"
  reread "$disk"
  sum=$(from_disk "$disk" "$offset" "$length" | sum_of sha256)
  result "\"sha256\":\"$sum\""
}

verb_digest() {
  disk=$(disk_arg) || exit
  length=$(number length) || exit
  [ "$(arg algorithm sha256)" = sha256 ] || fail 2 "algorithm must be sha256, not $(arg algorithm)"
  [ "$length" -le "$(disk_bytes "$disk")" ] || fail 2 "$disk has only $(disk_bytes "$disk") bytes"
  reread "$disk"
  sum=$(metered 0 0 "$length" head -c "$length" <"/dev/$disk" | sum_of sha256)
  result "\"sha256\":\"$sum\""
}

# place <disk> <limit>: sets offset and length, of whole sectors on the disk.
place() {
  offset=$(number offset) || exit
  length=$(number length) || exit
  [ $((offset % SECTOR)) -eq 0 ] && [ $((length % SECTOR)) -eq 0 ] || fail 2 "offset and length must be multiples of $SECTOR"
  [ "$length" -gt 0 ] && [ "$length" -le "$2" ] || fail 2 "length must be from $SECTOR to $2"
  [ $((offset + length)) -le "$(disk_bytes "$1")" ] || fail 2 "$1 ends at $(disk_bytes "$1")"
}

from_disk() { dd if="/dev/$1" bs=65536 skip="$2" count="$3" iflag=skip_bytes,count_bytes,fullblock; }
