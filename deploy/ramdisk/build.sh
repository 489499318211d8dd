#!/bin/bash
# build.sh [--flavour amd64|cloud-amd64] [--cache DIR] [--out DIR] [--again]: makes the ramdisk from Debian's packages.
#
#   vmlinuz        Debian's kernel, unchanged and signed
#   ramdisk.img    deploy and inspect: busybox, the agent, common drivers; at most 4 MB
#   extra.img      amd64 only: less common drivers, and zstd, which does not fit (it is in ramdisk.img of cloud-amd64)
#   burnin.img     stress-ng, fio, nvme, hdparm with their libraries
#   manifest.json  sizes, sums, and what it was made from
#
# Each image is a cpio archive of its own; the kernel unpacks several one after the other. The same packages give the same
# bytes, nothing is taken from the build machine but its tools, and nothing is built twice (--again builds all the same).
set -euo pipefail
umask 022
LC_ALL=C
export LC_ALL
here=$(dirname "$(readlink -f "$0")")
flavour=amd64 cache=$here/../../.cache/ramdisk out='' again=''
ramdisk_limit_bytes=4000000
while [ $# -gt 0 ]; do
  case $1 in
    --flavour) flavour=$2 && shift 2 ;;
    --cache) cache=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --again) again=yes && shift ;;
    *) echo "build.sh: unknown argument $1" >&2 && exit 2 ;;
  esac
done
# shellcheck source=debian.sh
. "$here/debian.sh"
tools='stress-ng fio nvme-cli hdparm zstd'
programs='usr/bin/stress-ng usr/bin/fio usr/sbin/nvme sbin/hdparm' # of burnin.img

main() {
  mkdir -p "$cache"
  cache=$(readlink -f "$cache")
  out=${out:-$cache/$flavour}
  mkdir -p "$out"
  exec 8>"$cache/build.lock"
  flock 8

  kernel=$("$here/kernel.sh" "$flavour" "$cache")
  version=$(basename "$kernel"/lib/modules/*)
  packages=$(packages_for "$tools busybox-static")
  built_from=$({ basename "$kernel" && echo "$packages" && sums_of_recipe; } | sha256sum | cut -d ' ' -f 1)
  if [ -z "$again" ] && grep -qs "\"built_from\": \"$built_from\"" "$out/manifest.json"; then
    echo "$out is up to date" && return
  fi

  work=$(mktemp -d "$cache/building.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  unpack_packages
  build_ramdisk
  [ "$flavour" = cloud-amd64 ] || build_extra
  build_burnin
  cp "$kernel/boot/vmlinuz-$version" "$work/images/vmlinuz"
  size=$(stat -c %s "$work/images/ramdisk.img")
  [ "$size" -le $ramdisk_limit_bytes ] || { echo "build.sh: ramdisk.img has $size bytes, over $ramdisk_limit_bytes" >&2 && exit 1; }
  manifest >"$work/images/manifest.json"
  rm -f "$out/manifest.json" # last, and gone while the others change: it vouches for them
  (cd "$work/images" && mv -f vmlinuz ./*.img "$out/" && mv -f manifest.json "$out/")
  cat "$out/manifest.json"
}

# packages_for <packages>: "name version" of them and all that they need, as for a machine on which nothing is installed.
packages_for() {
  # shellcheck disable=SC2086 # several words
  known fio && apt-get -s -o Dir::Cache::pkgcache="$cache/apt-index-none.bin" -o Debug::NoLocking=1 -o Dir::State::status=/dev/null \
    --no-install-recommends install $1 | awk '$1 == "Inst" { print $2, substr($3, 2) }' | sort
}

sums_of_recipe() { (cd "$here" && find . -type f | sort | xargs sha256sum); }

# Programs and libraries only: the rest of what Debian would install has no use in a ramdisk.
unpack_packages() {
  local wanted deb
  wanted=$(echo "$packages" | awk -v tools="$tools busybox-static" '
    BEGIN { split(tools, t, " "); for (i in t) is[t[i]] = 1 } ($1 in is) || /^(lib|zlib)/ { print $1 }')
  # shellcheck disable=SC2086 # several words
  for deb in $(fetch "$cache" $wanted); do dpkg-deb -x "$deb" "$work/debian"; done
}

build_ramdisk() {
  local tree=$work/ramdisk
  mkdir -p "$tree"/{bin,dev,etc,proc,run,sys,tmp}
  cp "$work/debian/bin/busybox" "$tree/bin/"
  ln -s busybox "$tree/bin/sh"
  ln -s bin/busybox "$tree/init"
  cp -r "$here/agent" "$tree/bloomery"
  mv "$tree/bloomery/inittab" "$tree/etc/"
  modules "$tree" ramdisk
  [ "$flavour" != cloud-amd64 ] || program "$tree" usr/bin/zstd
  pack "$tree" ramdisk 19
}

# Its module index is of both parts, and replaces that of ramdisk.img when the kernel unpacks it on top.
build_extra() {
  local tree=$work/extra
  modules "$tree" ramdisk extra
  (cd "$work/ramdisk" && find . -name '*.ko') | (cd "$tree" && xargs rm)
  program "$tree" usr/bin/zstd
  pack "$tree" extra 19
}

build_burnin() {
  local path
  for path in $programs; do program "$work/burnin" "$path"; done
  pack "$work/burnin" burnin 9 # 122 MB: 19 takes 90 s and saves a tenth
}

# modules <tree> <part>...: the drivers of these parts, with their signatures (Secure Boot), and an index of them.
modules() {
  local tree=$1 at=lib/modules/$version name
  shift
  mkdir -p "$tree/$at"
  for name in $(awk -v parts="$*" 'BEGIN { split(parts, p, " "); for (i in p) is[p[i]] = 1 }
      $1 in is { for (i = 2; i <= NF; i++) print $i }' "$here/modules.txt"); do
    /sbin/modprobe -d "$kernel" -S "$version" --show-depends "$name" 2>/dev/null |
      awk -v path="$kernel/" '$1 == "insmod" { print substr($2, length(path) + 1) }' || missing "$name"
  done | sort -u | (cd "$kernel" && xargs cp --parents -t "$tree")
  cp "$kernel/$at"/modules.{builtin,builtin.modinfo,order} "$tree/$at/"
  /sbin/depmod -b "$tree" "$version"
  (cd "$tree/$at" && find . -maxdepth 1 -type f ! -name modules.dep ! -name modules.alias -delete) # all that busybox reads
}

missing() { [ "$flavour" = cloud-amd64 ] || { echo "build.sh: this kernel has no module $1" >&2 && exit 1; }; }

# program <tree> <path>: it, its loader and every shared library it needs, all where the loader looks without a cache.
program() {
  local tree=$1 libraries=usr/lib/x86_64-linux-gnu queue=("$work/debian/$2") name found
  install -D -m 755 "$work/debian/$2" "$tree/usr/bin/$(basename "$2")"
  mkdir -p "$tree/$libraries" "$tree/lib64"
  while [ ${#queue[@]} -gt 0 ]; do
    for name in $(objdump -p "${queue[0]}" | awk '$1 == "NEEDED" { print $2 }'); do
      [ ! -e "$tree/$libraries/$name" ] || continue
      found=$(find "$work/debian" -name "$name" -print -quit)
      [ -n "$found" ] || { echo "build.sh: no package has $name, which $2 needs" >&2 && exit 1; }
      install -m 644 "$found" "$tree/$libraries/$name"
      queue+=("$found")
    done
    queue=("${queue[@]:1}")
  done
  install -m 755 "$work/debian/lib64/ld-linux-x86-64.so.2" "$tree/lib64/"
}

# pack <tree> <name> <level>: the same bytes every time: order, owners, times, inode numbers; one thread, as more would cut it differently.
pack() {
  mkdir -p "$work/images"
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . | sort | cpio --quiet --reproducible -R 0:0 -o -H newc) | zstd -q "-$3" --single-thread -o "$work/images/$2.img"
}

manifest() {
  local file files='' comma=''
  for file in vmlinuz ramdisk.img extra.img burnin.img; do
    [ -f "$work/images/$file" ] || continue
    files+=$(printf '%s\n    "%s": { "bytes": %s, "sha256": "%s" }' "$comma" "$file" \
      "$(stat -c %s "$work/images/$file")" "$(sha256sum "$work/images/$file" | cut -d ' ' -f 1)")
    comma=,
  done
  printf '{\n  "flavour": "%s",\n  "kernel": "%s",\n  "built_from": "%s",\n  "initrd": [%s],\n  "burn_in": ["burnin.img"],\n  "files": {%s\n  }\n}\n' \
    "$flavour" "$version" "$built_from" "$([ "$flavour" = cloud-amd64 ] && echo '"ramdisk.img"' || echo '"ramdisk.img", "extra.img"')" "$files"
}

main
