#!/bin/sh
# closure.sh ROOT [FILE...] [-- FILE...]: lays out below ROOT the files with all that they need to run there: shared
# libraries, the loader, and for scanners a note of each package that a file came from. A symbolic link stays one, with
# its target. Of the files after -- come only their needs. The layout is Debian's with merged /usr.
set -eu
root=$1
shift

mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/etc" "$root/tmp" "$root/dev" \
  "$root/proc" "$root/sys" "$root/run" "$root/var/lib/dpkg/status.d"
chmod 1777 "$root/tmp"
for folder in bin sbin lib lib64; do
  [ -L "$root/$folder" ] || ln -s usr/$folder "$root/$folder"
done

# The path with its folder's links resolved, its own last component kept.
canonical() { echo "$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")"; }

# Files whose packages are to be noted, both by their name and by that from before /usr was merged, which packages know.
files=$(mktemp)
trap 'rm -f "$files"' EXIT
remember() { printf '%s\n%s\n' "$1" "${1#/usr}" >>"$files"; }

note_packages() {
  packages=$(xargs dpkg-query -S <"$files" 2>/dev/null | sed -n -e '/^diversion /d' -e 's/[:,].*//p' | sort -u)
  [ -n "$packages" ] || return 0
  # shellcheck disable=SC2086
  dpkg-query -s $packages | awk -v folder="$root/var/lib/dpkg/status.d" '
    /^Package: / { file = folder "/" $2 }
    file && NF { print >file }
    !NF { if (file) close(file); file = "" }'
}

add() {
  path=$(canonical "$1")
  [ ! -e "$root$path" ] || return 0
  mkdir -p "$root$(dirname "$path")"
  cp -pd "$path" "$root$path"
  remember "$path"
  if [ -L "$path" ]; then
    target=$(readlink "$path")
    case $target in /*) add "$target" ;; *) add "$(dirname "$path")/$target" ;; esac
  fi
}

# A library is looked up by its soname, so each is stored under that name: one file, no link.
add_library() {
  path=$(canonical "$1")
  [ ! -e "$root$path" ] || return 0
  mkdir -p "$root$(dirname "$path")"
  cp -pL "$path" "$root$path"
  remember "$path"
}

for file in "$@"; do
  [ "$file" != -- ] || break
  add "$file"
done
for file in "$@"; do
  # Static programs and plain files have no libraries: ldd fails, and that is the answer.
  libraries=$(ldd "$file" 2>/dev/null) || continue
  case $libraries in *"not found"*)
    echo "closure.sh: $file needs libraries that are not here:" >&2
    echo "$libraries" | grep "not found" >&2
    exit 1 ;;
  esac
  for library in $(echo "$libraries" | sed -n -e 's/.*=> \(\/[^ ]*\) (.*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p'); do
    add_library "$library"
  done
done
note_packages
