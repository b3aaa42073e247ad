#!/bin/bash
# Installs or upgrades Collage on a cluster that a person names: CONTEXT is a context of their kubeconfig, IMAGE the operator's
# image with its tag, which that cluster can pull; the agent's image is the same name with -node. Nothing is chosen by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
usage='make deploy CONTEXT=<name> IMAGE=<registry/collage:tag> [VALUES=values.yaml]'

if [ -z "${CONTEXT:-}" ]; then
  echo "deploy: CONTEXT is missing: it says which cluster is changed. $usage" >&2
  command -v kubectl >/dev/null && echo "  your contexts: $(kubectl config get-contexts -o name 2>/dev/null | tr '\n' ' ')" >&2
  exit 2
fi
name=${IMAGE##*/}
if [ -z "${IMAGE:-}" ] || [ "$name" = "${name#*:}" ]; then
  echo "deploy: IMAGE must be a name with a tag, such as registry.example.com/collage:0.1.0. $usage" >&2
  echo "  build and push it with: make push IMAGE=registry.example.com/collage:0.1.0" >&2
  exit 2
fi
for program in kubectl helm; do
  if ! command -v "$program" >/dev/null; then
    [ -x build/e2e/bin/$program ] || e2e/setup/tools.sh
    PATH=$PATH:$PWD/build/e2e/bin
  fi
done
# Not the kubectl of a test cluster: the kubeconfig is the caller's.
echo "deploy: ${IMAGE} to context ${CONTEXT}, namespace collage-system"
kubectl --context "$CONTEXT" version >/dev/null || { echo "deploy: context $CONTEXT does not answer; see: kubectl config get-contexts" >&2; exit 1; }
# Helm makes CRDs once and never changes them: this does.
kubectl --context "$CONTEXT" apply --server-side --force-conflicts -f helm/collage/crds
# With the label that lets the agents mount, where the cluster enforces Pod Security.
kubectl --context "$CONTEXT" apply --server-side --force-conflicts -f manifests/namespace.yaml
helm --kube-context "$CONTEXT" upgrade --install collage helm/collage --namespace collage-system \
  --set-string image.repository="${IMAGE%:*}",image.tag="${IMAGE##*:}" ${VALUES:+--values "$VALUES"} --wait --timeout 5m
kubectl --context "$CONTEXT" -n collage-system get pods -o wide
