#!/bin/bash
# Runs each fuzzer for FUZZ_SECONDS, from the checked-in inputs and from what earlier runs found worth keeping. An input that
# breaks something is kept in build/fuzz/found; copied to unit/fuzz/corpus it becomes a unit test.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
seconds=${FUZZ_SECONDS:-60}
# Debian's name for it ends in the version, so that no sanitizer finds it by itself; without it reports hold addresses only.
export ASAN_SYMBOLIZER_PATH=/usr/lib/llvm-16/bin/llvm-symbolizer UBSAN_OPTIONS=print_stacktrace=1
mkdir -p build/fuzz/found build/fuzz/log
failed=0
for program in build/fuzz/bin/fuzz_*; do
  target=${program##*/fuzz_}
  mkdir -p "build/fuzz/corpus/$target"
  log=build/fuzz/log/$target.log
  echo "== $target for $seconds s"
  if "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/found/$target-" \
    "build/fuzz/corpus/$target" "unit/fuzz/corpus/$target" >"$log" 2>&1; then
    grep -E '^Done|stat::number_of_executed_units' "$log" | tail -1
  else
    failed=$((failed + 1))
    grep -E 'ERROR|SUMMARY|runtime error|broken promise|Test unit written' "$log"
    echo "   all of it: $log"
    echo "   once it is mended: cp build/fuzz/found/$target-... unit/fuzz/corpus/$target/ and run unit_fuzz"
  fi
done
[ "$failed" = 0 ]
