# shellcheck shell=sh
# Sourced by the agent: every NIC's link up (to see its carrier), an address for the one that the machine was booted from.
CARRIER_S=4 # longer than most links take; a NIC without a cable costs this once
boot_mac=$(parameter BOOTIF | sed 's/^[0-9a-f]*-//; s/-/:/g' | tr A-F a-f)

# The agent may have crashed and be here again: the DHCP client and its address then are still there.
if [ ! -s /run/ip ]; then
  ip link set lo up
  nics=
  until [ -n "$nics" ]; do
    for nic in /sys/class/net/*; do
      mac=$(first_line "$nic/address")
      [ -e "$nic/device" ] || continue
      ip link set "${nic##*/}" up
      [ "${boot_mac:-$mac}" = "$mac" ] && nics="$nics ${nic##*/}"
    done
    [ -n "$nics" ] || { say "no driver for the NIC this machine booted from (${boot_mac:-any}); waiting for it" && sleep 2; }
  done
  link_up_at=$(centiseconds)
  for nic in $nics; do udhcpc -f -R -t 4 -T 2 -A 2 -i "$nic" -s /bloomery/dhcp >/dev/null 2>&1 & done
  tries=0
  until [ -s /run/ip ]; do
    sleep 0.2
    tries=$((tries + 1))
    [ $((tries % 50)) -ne 0 ] || say "no DHCP answer yet on$nics"
  done
  say "address $(cat /run/ip) on $(cat /run/nic)"
  while grep -qs 0 /sys/class/net/*/carrier && [ $(($(centiseconds) - link_up_at)) -lt $((CARRIER_S * 100)) ]; do sleep 0.2; done
fi
