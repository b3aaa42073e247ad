#!/bin/sh
# Renders manifests/install.yaml from the chart and copies crds/ into it.
#   manifests/render.sh          writes them
#   manifests/render.sh --check  writes nothing; fails and shows the difference when they are not up to date
# HELM names the helm program (default: the one that `make e2e` builds, else the one on the PATH).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

if [ -z "${HELM:-}" ]; then
  HELM=helm
  if [ -x build/e2e/bin/helm ]; then HELM=build/e2e/bin/helm; fi
fi
if ! command -v "$HELM" >/dev/null; then
  echo "manifests/render.sh: no $HELM: install Helm 3, or set HELM to its path" >&2
  exit 1
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir "$out/crds"
cp crds/*.yaml "$out/crds/"
{
  cat <<'END'
# Collage without Helm. Rendered from helm/collage by manifests/render.sh: edit the chart, not this file.
# The images are placeholders: see kustomization.yaml. The CRDs and the namespace are apart, so that deleting this file keeps
# them, all backends and their Secrets:
#   kubectl apply -f crds/ && kubectl apply -k manifests/
#   kubectl delete -f manifests/install.yaml
END
  # What says that Helm keeps an object would be untrue here.
  "$HELM" template collage helm/collage --namespace collage-system --skip-tests \
    --set image.repository=registry.example.com/collage |
    sed -e '/^# Source: /d' -e '/helm\.sh\/chart: /d' -e '/app\.kubernetes\.io\/managed-by: /d'
} >"$out/install.yaml"

if [ "${1:-}" = --check ]; then
  status=0
  diff -u manifests/install.yaml "$out/install.yaml" || status=1
  diff -ru helm/collage/crds "$out/crds" || status=1
  if [ $status -ne 0 ]; then
    echo "not up to date: run manifests/render.sh and commit what it writes" >&2
  fi
  exit $status
fi

mkdir -p helm/collage/crds
rm -f helm/collage/crds/*.yaml
cp "$out"/crds/*.yaml helm/collage/crds/
cp "$out/install.yaml" manifests/install.yaml
