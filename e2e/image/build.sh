#!/bin/sh
# build.sh [BIN]: builds the images localhost/collage:dev and localhost/collage-node:dev from the programs in the folder
# BIN (build/release/bin) and writes them as docker-archives to build/image/collage.tar and collage-node.tar. With
# IMAGE=registry.example.com/collage:0.1.0 the images have that name, and .../collage-node:0.1.0.
#
# No registry is needed: the Dockerfile's base is made here, from the Debian archive that this machine's apt uses, and
# kept for the next time. A real engine, buildah, runs the Dockerfile.
set -eu
cd "$(dirname "$0")/../.."
bin=${1-build/release/bin}
work=build/image
base=localhost/collage-base:local
image=${IMAGE:-localhost/collage:dev}
name=${image%:*} tag=${image##*:}
case $tag in
  */* | "$image")
    echo "image: IMAGE=$image has no tag" >&2
    echo "  remedy: name one, as in IMAGE=registry.example.com/collage:0.1.0" >&2
    exit 1 ;;
esac

for program in buildah mmdebstrap unshare; do
  if ! command -v $program >/dev/null; then
    echo "image: $program is not installed" >&2
    echo "  remedy: sh e2e/setup/packages.sh image" >&2
    exit 1
  fi
done
if [ "$(id -u)" != 0 ]; then
  echo "image: building images needs root" >&2
  exit 1
fi
mkdir -p $work
exec 9>$work/lock
flock 9

sh e2e/image/binaries.sh "$bin" $work/out
inputs=$(echo "$image" | cat - $work/out/collage $work/out/collage-mount e2e/image/* | sha256sum | cut -d' ' -f1)
if [ -e $work/collage.tar ] && [ -e $work/collage-node.tar ] && [ "$(cat $work/inputs 2>/dev/null)" = "$inputs" ]; then
  echo "image: $work/collage.tar and collage-node.tar are up to date"
  exit 0
fi
rm -f $work/inputs

# Old layers add up; the base is apart and stays.
if [ -d $work/store ] && [ "$(du -sm $work/store | cut -f1)" -gt 4000 ]; then
  echo "image: emptying the layer store"
  rm -rf $work/store
fi

# The engine runs in a mount namespace of its own with its own /run: it leaves no mount behind, however it ends.
engine() {
  # shellcheck disable=SC2016
  unshare --mount --propagation private sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh \
    buildah --root "$PWD/$work/store" --runroot /run/buildah --storage-driver overlay "$@"
}

make_base() {
  echo "image: making a Debian base with mmdebstrap (about 30 s, once)"
  # Of this machine's sources those that are Debian's, and its proxies.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(ORIGIN):deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
    sed -n 's/^Debian://p' | sort -u >$work/sources.list
  if [ ! -s $work/sources.list ]; then
    echo "image: apt knows no Debian archive" >&2
    echo "  remedy: name one in /etc/apt/sources.list and run: apt-get update" >&2
    exit 1
  fi
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  set -- --variant=minbase --mode=root --include="$(sed 's/#.*//' e2e/image/node-packages | tr -s '\n' ',' | sed 's/^,//;s/,$//')"
  for kind in doc man locale info; do
    set -- "$@" --dpkgopt="path-exclude=/usr/share/$kind/*"
  done
  apt-config dump --format '%f "%v";%n' | grep -i '^Acquire::[a-z]*::proxy ' >$work/apt-proxies || true
  set -- "$@" --aptopt="$work/apt-proxies"
  mmdebstrap --quiet "$@" "$suite" $work/base.new.tar $work/sources.list
  mv $work/base.new.tar $work/base.tar
}

base_inputs=$(sha256sum e2e/image/node-packages | cut -d' ' -f1)
if [ ! -e $work/base.tar ] || [ "$(cat $work/base.inputs 2>/dev/null)" != "$base_inputs" ]; then
  make_base
  echo "$base_inputs" >$work/base.inputs
  rm -rf $work/store
fi
if ! engine inspect --type image $base >/dev/null 2>&1; then
  echo "image: taking the base into the engine"
  container=$(engine from scratch)
  engine add --quiet "$container" $work/base.tar / >/dev/null
  engine commit --quiet --rm "$container" $base >/dev/null
fi

for target in collage collage-node; do
  full=$name${target#collage}:$tag
  echo "image: building $full"
  if ! engine build --quiet --layers --isolation chroot --pull-never \
    --build-arg BASE=$base --build-arg BINARIES=prebuilt --target $target --tag "$full" \
    --ignorefile e2e/image/Dockerfile.dockerignore --file e2e/image/Dockerfile . >$work/build.log 2>&1; then
    cat $work/build.log >&2
    exit 1
  fi
  rm -f $work/$target.tar
  engine push --quiet "$full" "docker-archive:$work/$target.tar:$full"
done
echo "$inputs" >$work/inputs
ls -sh $work/collage.tar $work/collage-node.tar | sed 's/^/image: /'
