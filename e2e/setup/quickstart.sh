#!/bin/sh
# quickstart.sh        build the images, then run the tour on the cluster "quickstart"
# quickstart.sh down   remove the cluster and the Debian packages that were installed for it (KEEP=packages leaves those)
set -eu
cd "$(dirname "$0")/../.."
bin=build/e2e/bin

if [ "${1-}" = down ]; then
  if [ -x $bin/cluster ]; then
    $bin/cluster --name quickstart down
  else
    echo "quickstart: there is no cluster command, so no cluster was booted from this checkout"
  fi
  case ${KEEP-} in
    packages) echo "quickstart: Debian packages stay installed" ;;
    *) e2e/setup/packages.sh --remove ;;
  esac
  echo "quickstart: gone. What was built stays in build/ for the next time; 'make clean' removes it"
  exit 0
fi

e2e/image/build.sh
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS-} -buildvcs=false"
(cd e2e && go build -trimpath -o ../$bin/quickstart ./quickstart)
exec $bin/quickstart --images build/image/collage.tar,build/image/collage-node.tar --revision "$(cut -c1-12 build/image/inputs)"
