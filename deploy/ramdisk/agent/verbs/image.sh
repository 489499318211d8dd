# shellcheck shell=sh
# Sourced by the job: writes an image that is fetched by HTTP to a disk (direct deploy).
MIB=1048576

# The first MiB is held back until the checksum is right. It holds the partition table and the boot code, so a wrong image,
# a crash or a power cut never leaves a disk that boots.
verb_pull() {
  disk=$(disk_arg) || exit
  size=$(number size 0) || exit
  checksum=$(arg checksum)
  algorithm=${checksum%%:*}
  case $algorithm in sha256 | sha512) ;; *) fail 2 "checksum must be sha256:... or sha512:..., not $checksum" ;; esac
  compression=$(arg compression none)
  case $compression in
    none) unpack='cat' ;;
    gzip) unpack='gunzip -c' ;;
    zstd) unpack='zstd -dcq' && command -v zstd >/dev/null || fail 2 'this ramdisk was booted without the zstd tool (extra.img)' ;;
    *) fail 2 "compression must be none, gzip or zstd, not $compression" ;;
  esac
  total=0
  [ "$unpack" != cat ] || total=$size

  dd if=/dev/zero of="/dev/$disk" bs=$MIB count=1 conv=notrunc,fsync || fail 6 "cannot write to $disk"
  mkfifo "$job/to-sum" "$job/to-count" "$job/to-size"
  sum_of "$algorithm" <"$job/to-sum" >"$job/sum" &
  sum_pid=$!
  wc -c <"$job/to-count" >"$job/count" &
  wc -c <"$job/to-size" >"$job/size" &
  # Each stage leaves its exit code behind, and reads its input to the end whatever happens: the sum is of all of the download.
  { stream "$(arg url)" "$(arg auth none)" 2>"$job/stream.err"; echo $? >"$job/stream.rc"; } |
    tee "$job/to-sum" "$job/to-count" |
    { $unpack 2>"$job/unpack.err"; echo $? >"$job/unpack.rc"; cat >/dev/null; } |
    tee "$job/to-size" |
    { store "$disk" "$total"; echo $? >"$job/store.rc"; cat >/dev/null; }
  wait $sum_pid
  wait

  downloaded=$(cat "$job/count")
  actual=$algorithm:$(cat "$job/sum")
  [ "$(cat "$job/stream.rc")" = 0 ] || fail 4 "the download ended after $downloaded bytes: $(tail -n 1 "$job/stream.err")"
  [ "$size" -eq 0 ] || [ "$size" = "$downloaded" ] || fail 4 "the download has $downloaded bytes, $size were expected"
  [ "$actual" = "$checksum" ] || fail 3 "wrong checksum: expected $checksum, the download has $actual"
  [ "$(cat "$job/unpack.rc")" = 0 ] || fail 6 "not a whole $compression file: $(tail -n 1 "$job/unpack.err")"
  [ "$(cat "$job/store.rc")" = 0 ] || fail 6 "cannot write the image to $disk: $(grep '^dd:' "$job/store.err" | tail -n 1)"

  dd if="$job/first" of="/dev/$disk" bs=$MIB conv=notrunc,fsync || fail 6 "cannot write the first MiB to $disk"
  reread "$disk"
  result "\"bytes_downloaded\":$downloaded,\"bytes_written\":$(cat "$job/size"),\"checksum\":\"$actual\""
}

# store <disk> <total>: the first MiB into memory, the rest to its place. fullblock: a pipe gives less than it is asked for.
store() {
  dd of="$job/first" bs=$MIB count=1 iflag=fullblock 2>/dev/null &&
    metered 1 0 "$2" dd of="/dev/$1" bs=$MIB seek=1 iflag=fullblock conv=notrunc,fsync 2>"$job/store.err"
}
