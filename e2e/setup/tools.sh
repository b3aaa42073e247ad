#!/bin/sh
# Builds the programs that the cluster needs, into build/e2e/bin: cluster (seconds), then kube with kubectl, and helm
# (about 6 minutes on 2 cores the first time, seconds after that).
#
#   tools.sh cluster   the cluster command alone, for its preflight
#   tools.sh           all
set -eu
cd "$(dirname "$0")/../.."
bin=$PWD/build/e2e/bin

if ! command -v go >/dev/null; then
  echo "tools: there is no 'go' command in PATH" >&2
  echo "  remedy: install Go 1.25 or later from https://go.dev/dl and put its bin folder into PATH" >&2
  exit 1
fi
version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
minor=$(echo "$version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
if [ -z "$minor" ] || [ "$minor" -lt 25 ]; then
  echo "tools: $(command -v go) is $version, and Go 1.25 or later is needed" >&2
  echo "  remedy: install it from https://go.dev/dl and put its bin folder first in PATH" >&2
  exit 1
fi
# A release tells nobody apart from another: the same inputs give the same program.
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS-} -buildvcs=false"
mkdir -p "$bin"
(cd e2e && go build -trimpath -o "$bin/cluster" ./cluster/cmd)
[ "${1-all}" = all ] || exit 0

cd e2e/kube
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
helm=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)
note() {
  # A line now and then: a first build says nothing for minutes. Short sleeps, since one that is left over keeps a pipe
  # behind our output open.
  elapsed=0
  while sleep 1; do
    elapsed=$((elapsed + 1))
    [ $((elapsed % 20)) != 0 ] || echo "tools: building $1, $elapsed s (about 6 minutes the first time on 2 cores)"
  done
}
build() {
  name=$1 flags=$2 package=$3
  note "$name" &
  noter=$!
  if go build -trimpath -ldflags "-s -w $flags" -o "$bin/$name" "$package"; then result=0; else result=$?; fi
  kill $noter 2>/dev/null || true
  wait $noter 2>/dev/null || true
  if [ "$result" != 0 ]; then
    echo "tools: $name was not built" >&2
    echo "  remedy: if modules could not be fetched, check 'go env GOPROXY' and the network; if the disk is full, free 6 GB" >&2
    exit 1
  fi
}
echo "tools: Kubernetes $kubernetes and helm $helm"
component=k8s.io/component-base/version
build kube "-X $component.gitVersion=$kubernetes -X $component.gitMajor=1 -X $component.gitMinor=$(echo "$kubernetes" | cut -d. -f2)" .
build helm "-X helm.sh/helm/v3/internal/version.version=$helm" helm.sh/helm/v3/cmd/helm
ln -sf kube "$bin/kubectl"
echo "tools: built in $bin"
