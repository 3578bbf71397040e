#!/usr/bin/env bash
# Installs what is needed, builds, and runs every test.
#   bash tests/run.sh           everything that CI runs: release, ThreadSanitizer, ASan + UBSan
#   bash tests/run.sh --quick   the release build's tests only
#   bash tests/run.sh --all     as without a flag, and the long variants (every degree, longer fuzzing)
# Needs no terminal, no GPU and no PyTorch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=${1:-}
case "$mode" in
  "" | --quick) ;;
  --all) export COHORT_TEST_ALL=1 ;;
  *) echo "usage: bash tests/run.sh [--quick | --all]" >&2; exit 2 ;;
esac

jobs=$(nproc)
started=$SECONDS
step() { printf '== [%4d s] %s\n' $((SECONDS - started)) "$*"; }

# build_and_test PRESET [CTEST ARGUMENT...]
build_and_test() {
  local preset=$1
  shift
  local folder=build
  [[ "$preset" == release ]] || folder=build-$preset
  step "$preset: configure and build"
  cmake --preset "$preset" -DCOHORT_TESTS=ON
  cmake --build --preset "$preset" -j "$jobs"
  step "$preset: tests"
  ctest --test-dir "$folder" --output-on-failure --timeout 600 -j "$jobs" "$@"
}

step "packages"
bash deploy/install_packages.sh --tests
step "formatting"
git ls-files '*.cc' '*.h' '*.cu' | xargs -r clang-format-14 --dry-run --Werror

step "python environment for the tests (build/venv)"
if [[ ! -x build/venv/bin/pytest ]]; then
  python3 -m venv build/venv
  build/venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
fi

build_and_test release
if [[ "$mode" != --quick ]]; then
  # ThreadSanitizer does not know gRPC (hundreds of reports inside it): the engine side only, threads as ranks.
  # Left out too: what has one thread, and more sizes of operations whose threads other tests of theirs watch.
  build_and_test tsan -E 'HostProcess|^fuzz|Planner|CandidateChoice|SamplingTwins|Sample\.|PagedAttentionBf16|TensorCores|LongSequences|DoNotDependOnTheChunks|IsItsParts|RoutedFfn.*(Tiles|LargeBatch|ManyExperts)|TakesTheInnerDimensions'
  # The end-to-end tests run against the sanitized binary too. Of the emulated GPU the cheap tests of most kernels:
  # all sizes, ranks and other orders were tried in the release build.
  build_and_test asan -E 'cuda_emulator.(kernels|parallel|recorded|seed.[23]|compute)|end_to_end.(emulated|pocket_moe|long_context)'
fi
step "all tests passed"
