#!/usr/bin/env bash
# Fuzzes the operators under AddressSanitizer and UndefinedBehaviorSanitizer: with libFuzzer where CXX is clang, else with
# fuzz_main.cc. Usage: tests/ops/fuzz.sh [SECONDS]. An input that ends badly is left in fuzz/findings/ops.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
build="$(mktemp -d)"
findings="$root/fuzz/findings/ops"
trap 'rm -rf "$build"' EXIT
cmake -S "$root" -B "$build" -DCAFFECONV_DESC=OFF -DCAFFECONV_CUDA=OFF -DCAFFECONV_FUZZ=ON -DCAFFECONV_SANITIZE=ON >"$build.log"
cmake --build "$build" --target fuzz_ops --parallel "$(nproc)" >>"$build.log" || { cat "$build.log"; exit 1; }
mkdir -p "$findings"
export UBSAN_OPTIONS=print_stacktrace=1 CAFFECONV_FUZZ_LAST="$build/last"
if "$build/fuzz_ops" -help=1 >/dev/null 2>&1; then
  "$build/fuzz_ops" -max_total_time="${1:-60}" -max_len=512 -artifact_prefix="$findings/"
else
  "$build/fuzz_ops" "${1:-60}" || { cp "$build/last" "$findings/last"; exit 1; }
fi
