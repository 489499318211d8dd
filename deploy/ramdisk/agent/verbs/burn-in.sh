# shellcheck shell=sh
# Sourced by the job: works the machine hard with stress-ng, fio and the network, and reports what was measured.
SAMPLE_S=2 # between looks at the temperatures

verb_cpu() {
  seconds=$(number seconds) || exit
  workers=$(number workers 0) || exit
  need stress-ng
  stress "$seconds" cpu --cpu "$workers" --cpu-method all
}

# The memory that is free now, or a part of it; the rest is for the kernel and the agent.
verb_memory() {
  seconds=$(number seconds) || exit
  percent=$(number percent 80) || exit
  need stress-ng
  free_kib=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
  bytes=$((free_kib * 1024 / 100 * percent))
  extra_figures="\"bytes\":$bytes,"
  stress "$seconds" vm --vm "$(nproc)" --vm-bytes $bytes --vm-method all
}

stress() { # <seconds> <stressor> <arguments>...
  seconds=$1 stressor=$2
  shift 2
  run "$seconds" stress-ng "$@" --verify --timeout "${seconds}s" --metrics-brief --temp-path /tmp
  # "stress-ng: metrc: [1] cpu <bogo ops> <real s> <user s> <system s> <ops per real s> <ops per cpu s>"
  figures=$(awk -v name="$stressor" '$2 ~ /^metr/ && $4 == name { printf "\"bogo_ops\":%s,\"bogo_ops_per_s\":%s", $5, $9 }' "$job/output")
  grep -E 'fail:|error:' "$job/output" >>"$job/failures"
  finish stress-ng "$(stress-ng --version | sed 's/.*version \([^ ]*\).*/\1/')" "${extra_figures-}${figures:-\"bogo_ops\":0}"
}

verb_disk() {
  disk=$(doomed_disk) || exit
  seconds=$(number seconds) || exit
  bytes=$(number bytes 0) || exit
  need fio
  [ "$bytes" -gt 0 ] || bytes=$(disk_bytes "$disk")
  case $(arg mode read) in
    read) how='--rw=read --time_based' ;;
    verify-write) how='--rw=write --verify=crc32c --do_verify=1 --verify_fatal=1' ;;
    *) fail 2 "mode must be read or verify-write, not $(arg mode)" ;;
  esac
  # shellcheck disable=SC2086 # $how is several words of ours
  run "$seconds" fio --name=burn-in --filename="/dev/$disk" --direct=1 --ioengine=libaio --iodepth=16 --bs=1M \
    --size="$bytes" --runtime="$seconds" $how --output-format=normal,terse
  # terse version 3: 5 is the error, 6-8 of reads and 47-49 of writes are KiB, KiB/s and IOPS
  figures=$(grep '^3;fio' "$job/output" | awk -F ';' '{
    printf "\"errors\":%d,\"read_bytes\":%.0f,\"read_bytes_per_s\":%.0f,\"written_bytes\":%.0f,\"write_bytes_per_s\":%.0f",
      $5, $6 * 1024, $7 * 1024, $47 * 1024, $48 * 1024 }')
  grep -E '^(fio: |verify: )|bad magic|err=' "$job/output" | grep -v 'err= 0' >>"$job/failures"
  reread "$disk"
  finish fio "$(fio --version)" "${figures:-\"errors\":1}"
}

verb_network() {
  bytes=$(number bytes) || exit
  watch_kernel
  command="GET and POST $service/agent/throughput ($bytes bytes each)"
  started=$(centiseconds)
  got=$(stream "$service/agent/throughput?bytes=$bytes" session | wc -c)
  down=$(($(centiseconds) - started))
  [ "$got" = "$bytes" ] || echo "got $got bytes instead of $bytes" >>"$job/failures"
  with_session
  middle=$(centiseconds)
  request 3600 POST /agent/throughput /dev/zero "$bytes"
  up=$(($(centiseconds) - middle))
  [ "$(reply_line)" = "bytes=$bytes" ] || echo "the service took '$(reply_line)' (answer $status) instead of bytes=$bytes" >>"$job/failures"
  { echo "$command: $down and $up centiseconds"; cat "$job/failures"; } >"$job/output"
  finish agent 1 "\"bytes\":$bytes,\"down_bytes_per_s\":$((got * 100 / (down + 1))),\"up_bytes_per_s\":$((bytes * 100 / (up + 1)))"
}

need() { command -v "$1" >/dev/null || fail 2 "this ramdisk was booted without $1 (burnin.img)"; }

# run <seconds> <command>...: with its output in a file, and the highest temperatures and the kernel's complaints noted.
run() {
  watch_kernel
  planned=$1
  shift
  command="$*"
  started=$(centiseconds)
  while :; do temperatures >>"$job/temperatures"; sleep $SAMPLE_S; done &
  sampler=$!
  timed "$planned" "$@" >"$job/output" 2>&1
  code=$?
  kill $sampler
  [ $code -eq 0 ] || echo "$1 ended with code $code" >>"$job/failures"
}

watch_kernel() {
  : >"$job/failures"
  : >"$job/temperatures"
  started=$(centiseconds)
  kernel_lines=$(dmesg | wc -l)
}

temperatures() { # name, then degrees in thousandths
  for input in /sys/class/hwmon/hwmon*/temp*_input; do
    value=$(first_line "$input")
    [ -n "$value" ] && echo "$(first_line "${input%/*}/name") $(first_line "${input%_input}_label") $value"
  done
}

# finish <tool> <version> <figures>: uploads the log and writes the result. Failures make it rc 6, with all figures there.
finish() {
  seconds=$((($(centiseconds) - started) / 100))
  dmesg | tail -n +$((kernel_lines + 1)) | grep -E 'Hardware Error|Machine check|I/O error|Out of memory|EDAC|soft lockup' >>"$job/failures"
  upload log "$job/output"
  hottest=$(awk '{ value = $NF; $NF = ""; gsub(/[\\"]| *$/, ""); if (!($0 in max) || value > max[$0]) max[$0] = value }
    END { for (name in max) { printf "%s{\"name\":\"%s\",\"celsius\":%.1f}", comma, name, max[name] / 1000; comma = "," } }' "$job/temperatures")
  failures=$(head -n 20 "$job/failures" | while read -r line; do string "$(printf %s "$line" | cut -c 1-300)"; echo; done | paste -s -d ,)
  reason=
  [ -s "$job/failures" ] && reason="\"reason\":$(string "$1: $(head -n 1 "$job/failures" | cut -c 1-200)"),"
  result "$reason\"tool\":\"$1\",\"version\":\"$2\",\"command\":$(string "$command"),\"seconds\":$seconds,\"figures\":{$3},\"temperatures\":[$hottest],\"failures\":[$failures],\"log_sha256\":\"$(sum_of sha256 <"$job/output")\""
  [ -z "$reason" ] || exit 6
}
