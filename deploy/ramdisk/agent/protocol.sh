# shellcheck shell=sh
# Sourced by the agent and its jobs: speaks HTTP with the service named on the kernel command line.
service=$(parameter bloomery.url)
request_host=${service#http://}
request_host=${request_host%%/*}
request_reply=/run/reply.$$
request_type=text/plain
export request_method request_path request_host request_bearer request_type request_bytes request_body request_reply

# request <seconds> <method> <path> [body file] [bytes of it]: sets status (000: no answer) and leaves the body in $request_reply.
request() {
  request_method=$2 request_path=$3 request_body=${4:-/dev/null}
  request_bytes=${5:-$(stat -L -c %s "$request_body")}
  rm -f "$request_reply" "$request_reply.status"
  timeout -s KILL "$1" nc -w 10 "${request_host%:*}" "${request_host##*:}" -e /bloomery/exchange 2>/dev/null
  status=000
  [ -f "$request_reply.status" ] && read -r status <"$request_reply.status"
  return 0
}

with_session() { request_bearer=$(cat /run/session); }

reply_line() { [ -f "$request_reply" ] && head -n 1 "$request_reply" | cut -c 1-300 | tr -cd '\040-\176'; }

# patiently <longest pause in s> <statuses> <request>...: again and again until the answer's status begins as one of them.
patiently() {
  longest_s=$1 wanted=$2 pause_s=1
  shift 2
  while :; do
    request "$@"
    for prefix in $wanted; do case $status in "$prefix"*) return ;; esac; done
    say "$2 ${3%%\?*}: answer $status, again in $pause_s s"
    sleep "$pause_s"
    pause_s=$((pause_s * 2))
    [ "$pause_s" -le "$longest_s" ] || pause_s=$longest_s
  done
}

# upload <name> <file>: to the service, which answers with the sum of what it got. Fails the job when that is not what was sent.
upload() {
  with_session
  request 300 POST "/agent/upload?order=$(cat "$job/id")&name=$1" "$2"
  [ "$(reply_line)" = "$(sum_of sha256 <"$2")" ] || fail 4 "the service did not take the upload of $1 (answer $status)"
}

# stream <url> [session]: what is there, on standard output. Nobody else lives here, so the bearer may be an argument.
stream() {
  if [ "${2-}" = session ]; then wget -q -O - --header "Authorization: Bearer $(cat /run/session)" "$1"
  else wget -q -O - --no-check-certificate "$1"; fi # the checksum, not the certificate, is what an image is trusted by
}

sum_of() { "${1}sum" | cut -d ' ' -f 1; }
