# Sourced by the scripts beside it: gets packages from Debian's archive into a cache, and leaves the build machine as it is.
# shellcheck shell=bash

# Debian keeps only the newest version of a package, so a list that is a week old names files that are gone.
refresh_lists() {
  for _ in 1 2 3 4 5 6; do
    apt-get -qq update >&2 && return
    echo 'apt-get update failed (another one may be running): again in 5 s' >&2
    sleep 5
  done
  return 1
}

# Machines that keep no index of their lists (as containers are made) would read all of them anew at each look-up.
apt_index() { echo "${cache:?}/apt-index.bin"; }

# field <package> <name>: one field of the version that apt would install today.
field() { apt-cache -o Dir::Cache::pkgcache="$(apt_index)" show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n 1; }

# known <package>: fails unless the package lists know it, after fetching them where they do not.
known() { [ -n "$(field "$1" Version)" ] || { refresh_lists && [ -n "$(field "$1" Version)" ]; }; }

# fetch <cachedir> <package>...: the packages' files into cachedir/debs; prints their paths. apt checks their signatures' sums.
fetch() {
  local debs=$1/debs package name
  shift
  mkdir -p "$debs"
  for package; do
    name=$(deb_name "$package")
    [ -f "$debs/$name" ] || download "$debs" "$package" || { refresh_lists && download "$debs" "$package"; } || return 1
    echo "$debs/$(deb_name "$package")"
  done
}

# deb_name <package>: as apt-get download names the file: an epoch's colon is written %3a.
deb_name() { echo "$1_$(field "$1" Version | sed 's/:/%3a/')_$(field "$1" Architecture).deb"; }

# The sandbox user of apt cannot write to a cache that belongs to somebody else, and only warns about it.
download() { (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$2" >&2); }
