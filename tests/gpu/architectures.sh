#!/usr/bin/env bash
# Compiles the CUDA plugin for every architecture that it supports and looks at what the compiler says: no kernel may
# spill, and COMPILED.md must have all of them. Takes a quarter of an hour of one core, so it is not part of every test run.
#   bash tests/gpu/architectures.sh          checks
#   bash tests/gpu/architectures.sh write    brings COMPILED.md up to date
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mode=${1:-check}
[[ "$mode" == check || "$mode" == write ]] || { sed -n '2,5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

cmake --preset architectures
grep -q libcohort_cuda build-architectures/build.ninja || { echo "nvcc and NCCL are needed" >&2; exit 1; }
cmake --build --preset architectures
python3 tests/gpu/compile_report.py "$mode" build-architectures
