#!/usr/bin/env bash
# Builds and runs the kernels' own C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer; with --valgrind, also a
# shorter round of a plain build under valgrind. Usage: tests/ops/run.sh [--valgrind]. One minute, or two, on two cores.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT

make_tests() {
  cmake -S "$root" -B "$1" -DCAFFECONV_DESC=OFF -DCAFFECONV_BUILD_TESTS=ON -DCAFFECONV_SANITIZE="$2" >"$1.log" 2>&1 &&
    cmake --build "$1" --target test_infogain_loss test_conv_grad --parallel "$(nproc)" >>"$1.log" 2>&1 || {
    cat "$1.log"
    return 1
  }
}

make_tests "$build/sanitized" ON
export UBSAN_OPTIONS=print_stacktrace=1
"$build/sanitized/test_conv_grad"
"$build/sanitized/test_infogain_loss"
if [ "${1:-}" = --valgrind ]; then
  make_tests "$build/plain" OFF
  valgrind --quiet --error-exitcode=1 "$build/plain/test_conv_grad" --quick
  valgrind --quiet --error-exitcode=1 "$build/plain/test_infogain_loss" --quick
fi
