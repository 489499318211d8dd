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

# fetch <cachedir> <package>...: the packages' files into cachedir/debs; prints their paths. apt checks their sums.
fetch() {
  local debs=$1/debs
  shift
  mkdir -p "$debs"
  missing_debs "$debs" "$@" | download "$debs" || { refresh_lists && missing_debs "$debs" "$@" | download "$debs"; } || return 1
  deb_names "$@" | sed "s,.* ,$debs/,"
}

# deb_names <package>...: "package file", the file as apt-get download names it: an epoch's colon is written %3a.
deb_names() {
  apt-cache -o Dir::Cache::pkgcache="$(apt_index)" show --no-all-versions "$@" | awk '
    $1 == "Package:" { package = $2 } $1 == "Version:" { version = $2 } $1 == "Architecture:" { architecture = $2 }
    $0 == "" { sub(/:/, "%3a", version); print package, package "_" version "_" architecture ".deb" }'
}

missing_debs() {
  local debs=$1 package file
  shift
  deb_names "$@" | while read -r package file; do [ -f "$debs/$file" ] || echo "$package"; done
}

# The sandbox user of apt cannot write to a cache that belongs to somebody else, and only warns about it.
download() { (cd "$1" && xargs -r apt-get -qq -o APT::Sandbox::User=root download >&2); }
