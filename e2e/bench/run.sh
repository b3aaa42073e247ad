#!/bin/sh
# Builds what the benchmark needs and runs it on a two-node Kubernetes of its own, which is removed afterwards.
# Results: tables, build/bench/results.json and results.svg. docs/benchmarks.md tells how to read them.
#
#   BENCH_PHASES=...       of provision,attach,detach,delete,latency,node,idle,scale (default all)
#   BENCH_ROUNDS=5         pairs of rounds
#   BENCH_CLAIMS=1000      claims a round
#   BENCH_ATTACHES=1000    attaches and detaches a turn
#   BENCH_TURNS=3          turns a round
#   BENCH_SERIAL=200       claims one after the other
#   BENCH_STAGED=50        volumes mounted on one node
#   BENCH_IDLE_SECONDS=300 with nothing to do
#   BENCH_OBJECTS=10000    claims, volumes and pods each
#   BENCH_STRICT=1         fail when a goal is missed
#   BENCH_DOCS=1           put the results into docs/benchmarks.md and docs/benchmarks.svg
#   BENCH_BIN=FOLDER       measure the collage and collage-mount there instead of building build/release
#   BENCH_CRDS=FOLDER      with these CRDs
#   BENCH_NAME=bench       of the cluster
set -eu
cd "$(dirname "$0")/../.."
bin=build/e2e/bin

e2e/setup/tools.sh cluster
$bin/cluster --name "${BENCH_NAME:-bench}" preflight bench
e2e/setup/packages.sh build cluster
if [ -z "${BENCH_BIN-}" ]; then
  make --no-print-directory configure PRESET=release
  cmake --build build/release -j "${JOBS:-$(nproc)}" --target collage collage-mount
fi
e2e/setup/tools.sh
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS-} -buildvcs=false"
(cd e2e && go build -trimpath -o ../$bin/bench ./bench)
(cd e2e/kube && go build -trimpath -o ../../$bin/floor ./cmd/floor)
set --
[ -z "${BENCH_PHASES-}" ] || set -- "$@" --phases "$BENCH_PHASES"
[ "${BENCH_STRICT-0}" = 0 ] || set -- "$@" --strict
[ "${BENCH_DOCS-0}" = 0 ] || set -- "$@" --docs docs
exec $bin/bench --name "${BENCH_NAME:-bench}" --rounds "${BENCH_ROUNDS:-5}" --claims "${BENCH_CLAIMS:-1000}" \
  --attaches "${BENCH_ATTACHES:-1000}" --turns "${BENCH_TURNS:-3}" \
  --serial "${BENCH_SERIAL:-200}" --staged "${BENCH_STAGED:-50}" \
  --idle "${BENCH_IDLE_SECONDS:-300}s" --objects "${BENCH_OBJECTS:-10000}" --crds "${BENCH_CRDS:-crds}" \
  --bin "${BENCH_BIN:-build/release/bin}" "$@"
