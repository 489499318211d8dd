#!/bin/bash
# kernel.sh <flavour> <cachedir>: gets Debian's newest kernel of a flavour (amd64, cloud-amd64), unpacked and with its modules
# indexed, and prints the directory: boot/vmlinuz-<version>, lib/modules/<version>/. Nothing is installed; safe to run twice at once.
set -euo pipefail
flavour=${1:?usage: kernel.sh amd64|cloud-amd64 <cachedir>}
cache=${2:?usage: kernel.sh amd64|cloud-amd64 <cachedir>}
# shellcheck source=debian.sh
. "$(dirname "$(readlink -f "$0")")/debian.sh"
case $flavour in amd64 | cloud-amd64) ;; *) echo "kernel.sh: no such flavour: $flavour" >&2 && exit 2 ;; esac

mkdir -p "$cache"
cache=$(readlink -f "$cache")
exec 9>"$cache/kernel-$flavour.lock"
flock 9

known "linux-image-$flavour" || { echo "kernel.sh: Debian's lists do not know linux-image-$flavour" >&2 && exit 1; }
package=$(field "linux-image-$flavour" Depends | sed 's/[ ,].*//') # the meta package depends on today's kernel
unpacked=$cache/$package-$(field "$package" Version)

if [ ! -d "$unpacked" ]; then
  deb=$(fetch "$cache" "$package")
  part=$(mktemp -d "$cache/unpacking.XXXXXX")
  trap 'rm -rf "$part"' EXIT
  dpkg-deb -x "$deb" "$part"
  version=$(basename "$part"/lib/modules/*)
  PATH=$PATH:/usr/sbin:/sbin depmod -b "$part" "$version"
  chmod 755 "$part"
  mv "$part" "$unpacked"
  rm -f "$deb" # 70 MB that are unpacked beside it
fi
echo "$unpacked"
