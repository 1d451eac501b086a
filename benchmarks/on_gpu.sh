#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, by one command and in under ten minutes: the `cuda` tests, the CUDA kernels of
# InfogainLoss beside a copy's bandwidth, and well-known nets in float32, float16 and channels last.
#
#     benchmarks/on_gpu.sh [FOLDER]
#
# Needs an environment with `pip install ".[gpu,test]"`; the kernels' own benchmark needs nvcc too. What could not run is
# named at the end, and the exit status is 1 then. FOLDER takes the parts' output; default: a new one.
set -uo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="${1:-$(mktemp -d)}"
mkdir -p "$out"
missing=()

# part NAME SECONDS COMMAND…: runs it, shows and keeps what it prints
part() {
  local name="$1" limit="$2"
  shift 2
  printf '\n== %s\n' "$name"
  timeout "$limit" "$@" 2>&1 | tee "$out/$name.txt" || missing+=("$name (exit status ${PIPESTATUS[0]}, see $out/$name.txt)")
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>&1 | tee "$out/gpu.txt"
part cuda-tests 240 python -m pytest -q -m cuda -p no:cacheprovider "$root/tests"
if command -v nvcc >/dev/null; then
  part build 90 nvcc -O3 -std=c++17 -arch=native "-I$root/caffeconv/ops" "$root/benchmarks/infogain_cuda.cu" \
    "$root/caffeconv/ops/infogain_loss.cu" -o "$out/infogain_cuda"
  part infogain 60 "$out/infogain_cuda"
else
  missing+=("infogain (no nvcc on the PATH)")
fi
part nets 200 python "$root/benchmarks/cuda_nets.py"

printf '\n%s\n' "Kept in $out."
if [ "${#missing[@]}" -gt 0 ]; then
  printf 'Did not run: %s\n' "${missing[@]}"
  exit 1
fi
