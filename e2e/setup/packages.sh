#!/bin/sh
# Installs the Debian packages that a set of tasks needs; at once when all are there.
#
#   packages.sh SET...            install what is missing of these sets
#   packages.sh --missing SET...  print what would be installed, install nothing
#   packages.sh --remove          remove what earlier runs installed, dependencies included
#
# Sets: build (compile Collage), cluster (boot the two-node Kubernetes), image (build the container images), push (push
# them), lint (clang-format, clang-tidy), fuzz (the compiler with libFuzzer, the symbolizer). What a run installs is recorded in
# build/e2e/installed-packages.
set -eu

packages_of() {
  case $1 in
    build) echo make g++ cmake ninja-build ccache pkg-config libcpprest-dev libssl-dev libspdlog-dev nlohmann-json3-dev \
      libyaml-cpp-dev prometheus-cpp-dev libabsl-dev libgrpc++-dev protobuf-compiler-grpc protobuf-compiler \
      libprotobuf-dev libcpp-httplib-dev libcli11-dev libgtest-dev libgmock-dev libmount-dev libblkid-dev zlib1g-dev \
      ca-certificates ;;
    cluster) echo containerd runc containernetworking-plugins busybox-static nftables xfsprogs e2fsprogs iproute2 openssl mount \
      util-linux ;;
    image) echo buildah mmdebstrap ca-certificates util-linux ;;
    push) echo skopeo ca-certificates ;;
    lint) echo clang-format clang-tidy ;;
    fuzz) echo clang-16 libclang-rt-16-dev llvm-16 ;;
    *) echo "packages.sh: no set '$1': there are build, cluster, image, push, lint and fuzz" >&2; exit 2 ;;
  esac
}

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -q '^installed$'; }

# One line for each package and architecture.
all_installed() { dpkg-query -W -f '${db:Status-Abbrev}${binary:Package}\n' | sed -n 's/^ii *//p' | sort; }

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case ${1-} in
  '') usage ;;
  --missing | --remove) ;;
  -*) usage ;;
esac

cd "$(dirname "$0")/../.."
record=build/e2e/installed-packages
mode=install
case ${1-} in
  --missing) mode=missing; shift ;;
  --remove) mode=remove; shift ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "packages.sh: this machine has no apt: the project is built and tested on Debian 12 (bookworm)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

if [ $mode = remove ]; then
  if [ ! -s $record ]; then
    echo "packages: none were installed by this project"
    exit 0
  fi
  present=
  while read -r package; do
    if installed "$package"; then present="$present $package"; fi
  done <$record
  if [ -n "$present" ]; then
    architecture=$(dpkg --print-architecture)
    # shellcheck disable=SC2086
    others=$(apt-get -s purge $present | sed -n 's/^\(Remv\|Purg\) \([^ ]*\).*/\2/p' | sort -u | while read -r package; do
      grep -qxF -e "$package" -e "$package:$architecture" $record || printf ' %s' "$package"
    done)
    if [ -n "$others" ]; then
      echo "packages: nothing was removed: by now these need some of what was installed:$others" >&2
      echo "  remedy: remove those first, or keep the packages (they are listed in $record)" >&2
      exit 1
    fi
    echo "packages: removing$present"
    # shellcheck disable=SC2086
    apt-get -q purge -y $present
  fi
  rm -f $record
  exit 0
fi

missing=
for set in "$@"; do
  packages_of "$set" >/dev/null
  for package in $(packages_of "$set"); do
    case " $missing " in *" $package "*) continue ;; esac
    installed "$package" || missing="$missing $package"
  done
done
missing=${missing# }
if [ $mode = missing ]; then
  echo "$missing"
  exit 0
fi
if [ -z "$missing" ]; then
  echo "packages: all of '$*' are installed"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "packages: missing: $missing" >&2
  echo "  remedy: become root and run: sh e2e/setup/packages.sh $*" >&2
  exit 1
fi

mkdir -p build/e2e
before=build/e2e/.packages-before.$$
policy=/usr/sbin/policy-rc.d
made_policy=
finish() {
  # What was installed is recorded however this ends.
  all_installed | comm -13 $before - >>$record
  sort -u -o $record $record
  rm -f $before
  [ -z "$made_policy" ] || rm -f $policy
}
all_installed >$before
trap finish EXIT
trap 'exit 130' INT TERM
# A package that holds a daemon would start it. Debian's way to say no is policy-rc.d.
if [ ! -e $policy ]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi

can_install() {
  # shellcheck disable=SC2086
  apt-get -qq -s install --no-install-recommends $missing >/dev/null 2>&1
}
fresh_lists() { [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mtime -7 2>/dev/null | head -n 1)" ]; }

if ! fresh_lists || ! can_install; then
  echo "packages: bringing the package lists up to date"
  apt-get -q -o Acquire::Retries=3 update
fi
echo "packages: installing $missing"
log=build/e2e/packages.log
# shellcheck disable=SC2086
{ apt-get -q -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing 2>&1 && echo "installed all"; } |
  tee $log | awk '
    / newly installed/ { match($0, /[0-9]+ newly/); all = substr($0, RSTART, RLENGTH - 6) }
    /^(Need to get|Fetched)/ { print "packages: " $0; fflush() }
    /^Unpacking / && ++unpacked % 25 == 0 { print "packages: unpacked " unpacked " of " all; fflush() }
    /^Setting up / && ++ready % 25 == 0 { print "packages: set up " ready " of " all; fflush() }'
if [ "$(tail -n 1 $log)" != "installed all" ]; then
  tail -n 20 $log >&2
  echo "packages: the installation failed; all that apt said is in $log" >&2
  echo "  remedy: /etc/apt must name a Debian 12 (bookworm) archive that this machine reaches" >&2
  exit 1
fi
echo "packages: done; 'sh e2e/setup/packages.sh --remove' takes away again what was installed"
