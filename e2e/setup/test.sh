#!/bin/bash
# Runs the tests and ends with one line that counts them: "N passed, N failed".
#
#   test.sh unit   build everything, run the unit tests (PRESET=release, asan, tsan)
#   test.sh e2e    boot a cluster of its own and run the end-to-end tests on it; with PRESET=asan or tsan the tests with
#                  the images alone, of programs that were built so
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
preset=${PRESET:-release}
jobs=${JOBS:-$(nproc)}
logs=build/test-logs
mkdir -p "$logs"
passed=0 failed=0
failures=()

note() { printf '== %s  (%d s)\n' "$1" "$SECONDS"; }
must() { "$@" || { echo "test: '$*' failed" >&2; echo "$passed passed, $((failed + 1)) failed"; exit 1; }; }

count() {  # count NAME PASSED FAILED CODE [SKIPPED]: a runner that died without a count is one failure
  passed=$((passed + $2))
  failed=$((failed + $3))
  if [ "$4" != 0 ] && [ "$3" = 0 ]; then failed=$((failed + 1)); fi
  if [ "$4" != 0 ]; then failures+=("$1"); fi
  printf '   %-22s %4d passed, %d failed%s\n' "$1" "$2" "$3" "${5:+, $5 skipped}"
}

# One unit test program, beside others: its output goes to NAME.log, its exit code to NAME.code.
one_unit() {
  local name code began=$SECONDS
  name=$(basename "$1")
  timeout "$unit_limit" "$1" --gtest_color=no >"$logs/$name.log" 2>&1
  code=$?
  echo $code >"$logs/$name.code"
  printf '   %-22s %4d s\n' "$name" $((SECONDS - began))
}

run_unit() {
  local binary name log code ok bad
  unit_limit=900
  [ "$preset" = release ] || unit_limit=3600
  export -f one_unit
  export logs unit_limit
  rm -f "$logs"/unit_*.code
  # The largest takes longest: first.
  # shellcheck disable=SC2012
  ls -S build/"$preset"/bin/unit_* | xargs -P "$jobs" -I{} bash -c 'one_unit {}'
  for binary in build/"$preset"/bin/unit_*; do
    name=$(basename "$binary") log=$logs/$(basename "$binary").log
    code=$(cat "$logs/$name.code" 2>/dev/null || echo 1)
    ok=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) tests\{0,1\}\.$/\1/p' "$log" | tail -1)
    bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) tests\{0,1\}, listed below:$/\1/p' "$log" | tail -1)
    count "$name" "${ok:-0}" "${bad:-0}" "$code" "$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) tests\{0,1\}, listed below:$/\1/p' "$log" | tail -1)"
    [ "$code" = 0 ] || { grep -E '^\[  FAILED|Failure$|ERROR: |WARNING: ThreadSanitizer' "$log" | head -20; tail -5 "$log"; }
  done
}

run_go() {  # run_go FOLDER [PACKAGE...]
  local folder=$1 log code ok bad
  shift
  log=$logs/go-$(echo "$folder $*" | tr -c 'a-z0-9\n' '-').log
  (cd "$folder" && go test -count=1 -timeout 40m -v "$@") 2>&1 | tee "$log" | grep --line-buffered -E '^(=== RUN|--- FAIL|    --- FAIL|FAIL|panic)' | grep --line-buffered -vE '^=== RUN .*/'
  code=${PIPESTATUS[0]}
  ok=$(grep -c '^--- PASS' "$log")
  bad=$(grep -c '^--- FAIL' "$log")
  count "$folder $*" "$ok" "$bad" "$code"
  [ "$code" = 0 ] || { grep -B 25 -A 5 -E '^ *--- FAIL|^panic' "$log" | head -120; }
}

for part in "$@"; do
  case $part in
    unit)
      note "packages"; must e2e/setup/packages.sh build cluster
      note "compile ($preset)"; must make --no-print-directory configure PRESET="$preset"
      must cmake --build build/"$preset" -j "$jobs"
      note "unit tests"; run_unit
      ;;
    e2e | cuts)
      note "packages"; must e2e/setup/packages.sh build cluster image
      note "compile ($preset)"; must make --no-print-directory configure PRESET="$preset"
      must cmake --build build/"$preset" -j "$jobs" --target collage collage-mount
      note "Kubernetes and helm"; must e2e/setup/tools.sh
      if [ "$preset" != release ]; then
        export SANITIZED=$preset
      elif [ "$part" = e2e ]; then
        must cmake --build build/"$preset" -j "$jobs" --target unit_kube  # held against a real API server
        note "tests without a cluster"; run_go e2e ./cluster/... ./chart/... ./rights/... ./bench/... ./mutants/... ./sanitizers/...
      fi
      note "images"; must e2e/image/build.sh build/"$preset"/bin
      note "tests on a real cluster"
      if [ "$part" = cuts ]; then
        COLLAGE_ALL_CUTS=1 run_go e2e ./suite/... -run TestEveryCut
      else
        run_go e2e ./suite/...
      fi
      ;;
    *) echo "test.sh: no part '$part': there are unit, e2e and cuts" >&2; exit 2 ;;
  esac
done
note "done"
for name in "${failures[@]}"; do echo "   failed: $name (see $logs)"; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
