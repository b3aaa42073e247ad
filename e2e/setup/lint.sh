#!/bin/bash
# Formatting and static checks of everything; each finding is an error.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
e2e/setup/packages.sh build lint || exit 1
make --no-print-directory configure PRESET=release || exit 1
cmake --build build/release -j "$(nproc)" --target collage_proto || exit 1
e2e/setup/tools.sh || exit 1
failed=0
check() { printf '== %s\n' "$1"; shift; "$@" || failed=1; }

sources() { git ls-files '*.h' '*.cpp' '*.inl'; }
format() { sources | xargs clang-format --dry-run --Werror; }
# Warnings in headers of others are counted on stderr, file by file: of no use to anybody.
tidy() {
  git ls-files 'base/*.cpp' 'drivers/*.cpp' 'operator/*.cpp' |
    xargs -P "$(nproc)" -n 4 clang-tidy -p build/release --quiet 2> >(grep -v 'warnings generated' >&2)
}
go_format() {
  local wrong
  wrong=$(gofmt -l e2e)
  [ -z "$wrong" ] || printf '%s\n' "$wrong" >&2
  [ -z "$wrong" ]
}
go_vet() { (cd e2e && go vet ./...) && (cd e2e/kube && go vet ./...); }
shell() { git ls-files '*.sh' .ci/run | while read -r script; do bash -n "$script" || exit 1; done; }

check "clang-format" format
check "clang-tidy" tidy
check "gofmt" go_format
check "go vet" go_vet
check "shell syntax" shell
check "manifests are rendered from the chart" manifests/render.sh --check
check "helm lint" build/e2e/bin/helm lint --set image.repository=registry.example.com/collage helm/collage
[ $failed = 0 ] && echo "lint: clean"
exit $failed
