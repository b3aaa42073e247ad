#!/bin/sh
# Pushes the images that build.sh wrote to the registry that is in their name, IMAGE=registry.example.com/collage:0.1.0, with
# the credentials of `skopeo login` or `docker login`. COPY_OPTIONS are more options of `skopeo copy`.
set -eu
cd "$(dirname "$0")/../.."
image=${IMAGE:-}
case ${image##*/} in
  *:*) ;;
  *)
    echo "push: IMAGE must be a name with a tag, such as registry.example.com/collage:0.1.0" >&2
    exit 2 ;;
esac
e2e/setup/packages.sh push
for target in collage collage-node; do
  full=${image%:*}${target#collage}:${image##*:}
  echo "push: $full"
  # shellcheck disable=SC2086
  skopeo copy --quiet ${COPY_OPTIONS:-} "docker-archive:build/image/$target.tar:$full" "docker://$full" || {
    echo "push: $full was not taken" >&2
    echo "  remedy: skopeo login ${image%%/*}; for a registry without TLS: COPY_OPTIONS=--dest-tls-verify=false" >&2
    exit 1
  }
done
