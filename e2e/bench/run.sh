#!/bin/sh
# Builds what the benchmark needs and runs it on a two-node Kubernetes of its own, which is removed afterwards.
# Results: a table, and build/bench/results.json. docs/benchmarks.md tells how to read them.
#
#   BENCH_ROUNDS=5     pairs of rounds (default 3)
#   BENCH_CLAIMS=1000  claims a round
#   BENCH_ATTACHES=300 attaches and detaches a round
#   BENCH_BIN=FOLDER   measure the collage and collage-mount there instead of building build/release
set -eu
cd "$(dirname "$0")/../.."
bin=build/e2e/bin

e2e/setup/packages.sh build cluster
if [ -z "${BENCH_BIN-}" ]; then
  make --no-print-directory configure PRESET=release
  cmake --build build/release -j "${JOBS:-$(nproc)}" --target collage collage-mount
fi
e2e/setup/tools.sh
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS-} -buildvcs=false"
(cd e2e && go build -trimpath -o ../$bin/bench ./bench)
(cd e2e/kube && go build -trimpath -o ../../$bin/floor ./cmd/floor)
exec $bin/bench --rounds "${BENCH_ROUNDS:-3}" --claims "${BENCH_CLAIMS:-1000}" --attaches "${BENCH_ATTACHES:-300}" \
  --bin "${BENCH_BIN:-build/release/bin}"
