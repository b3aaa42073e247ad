#!/bin/sh
# binaries.sh BIN OUT: takes collage and collage-mount from the folder BIN and lays out in OUT what the Dockerfile wants:
# the programs, apart from what they need to run, so that a changed program changes one small layer of an image.
set -eu
bin=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
for program in collage collage-mount; do
  if [ ! -x "$bin/$program" ]; then
    echo "binaries.sh: there is no $bin/$program" >&2
    echo "  remedy: build it: make build" >&2
    exit 1
  fi
done
certificates=/etc/ssl/certs/ca-certificates.crt
if [ ! -e $certificates ]; then
  echo "binaries.sh: there is no $certificates" >&2
  echo "  remedy: install the package ca-certificates" >&2
  exit 1
fi

rm -rf "$out"
mkdir -p "$out"
for program in collage collage-mount; do
  # The debug information stays with the build. Without binutils the image is larger, nothing else.
  strip --strip-debug -o "$out/$program" "$bin/$program" 2>/dev/null || cp "$bin/$program" "$out/$program"
done
chmod 755 "$out/collage" "$out/collage-mount"
lay_out() {
  root=$1
  shift
  sh "$here/closure.sh" "$root" $certificates -- "$@"
  # Where Debian's OpenSSL looks for authorities by itself.
  mkdir -p "$root/usr/lib/ssl"
  ln -sf $certificates "$root/usr/lib/ssl/cert.pem"
  printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
}
lay_out "$out/operator" "$out/collage"
lay_out "$out/node" "$out/collage" "$out/collage-mount"
