#!/usr/bin/env bash
# Makes the bundle that a GPU machine needs: programs linked statically, the CUDA plugin, small checkpoints, scripts.
#   bash tests/gpu/pack.sh                       builds (preset static) and packs build-static/cohort-gpu-suite.tar.gz
#   bash tests/gpu/pack.sh --build DIR           packs what DIR holds, without building
#   bash tests/gpu/pack.sh --build DIR --emulated    with the plugin of the emulated GPU (tests/cuda_emulator)
#   --output FILE                                another place for the bundle
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly limit_bytes=40000000
readonly programs=(cohort cohort_kernels_test cohort_parallel_test cohort_runtime_test cohort_gpu_bench)
readonly golden=(five-heads-tied six-heads-sharded fourteen-heads-bf16 large-key-bias ten-experts-step-two
  sixteen-experts-bf16 yarn yarn-other-original dual-chunk)
# What every machine with glibc and the C++ runtime has.
readonly system_libraries='^(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libgcc_s|libstdc\+\+)\.so'

fail() { echo "pack.sh: $*" >&2; exit 1; }

build="" output="" emulated=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --build) build=${2:?} && shift ;;
    --output) output=${2:?} && shift ;;
    --emulated) emulated=1 ;;
    *) echo "usage: bash tests/gpu/pack.sh [--build DIR [--emulated]] [--output FILE]" >&2; exit 2 ;;
  esac
  shift
done

if [[ -z "$build" ]]; then
  build=build-static
  cmake --preset static -DCOHORT_TESTS=ON
  cmake --build --preset static -j "$(nproc)" --target "${programs[@]}" cohort_gpu_limits cohort_cuda
fi
output=${output:-$build/cohort-gpu-suite.tar.gz}
plugin_folder=$build/lib
[[ $emulated -eq 0 ]] || plugin_folder=$build/cuda_emulator/lib

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
bundle=$staging/cohort-gpu-suite
mkdir -p "$bundle"/{bin,lib,models,golden,suite}

# Programs and plugins without their symbols.
copy_stripped() {
  [[ -e "$1" ]] || fail "$1 is missing: build it first"
  strip -o "$2/$(basename "$1")" "$1"
}
for program in "${programs[@]}"; do
  copy_stripped "$build/bin/$program" "$bundle/bin"
done
copy_stripped "$(dirname "$plugin_folder")/bin/cohort_gpu_limits" "$bundle/bin"
for library in "$plugin_folder"/*.so; do
  copy_stripped "$library" "$bundle/lib"
done

# The shared libraries that have no archive, and those below them. Without COHORT_STATIC: for this machine only.
if grep -q '^COHORT_STATIC:BOOL=ON' "$build/CMakeCache.txt"; then
  while read -r name _ path _; do
    [[ "$name" =~ $system_libraries || "$path" != /* ]] || cp -L "$path" "$bundle/lib/$name"
  done < <(for program in "${programs[@]}"; do ldd "$build/bin/$program"; done | sort -u)
  for file in "$bundle"/bin/* "$bundle"/lib/*; do
    for needed in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
      [[ "$needed" =~ $system_libraries || -e "$bundle/lib/$needed" || "$needed" =~ ^(libcublasLt|libnccl)\. ]] ||
        fail "$(basename "$file") needs $needed, which a GPU machine may not have"
    done
  done
fi

cp -r deploy/pocket deploy/pocket-moe "$bundle/models/"
rm -rf "$bundle"/models/*/training "$bundle"/models/*/README.md
for name in "${golden[@]}"; do
  cp -r "tests/golden/$name" "$bundle/golden/"
done
cp tests/gpu/{run.sh,steps.sh,table.awk,rows.tsv,peers.py,README.md} "$bundle/suite/"
ln -s suite/run.sh "$bundle/run.sh"
{ git rev-parse HEAD 2>/dev/null || echo "no commit"; } > "$bundle/COMMIT"
git diff --quiet HEAD 2>/dev/null || echo "with changes that are not committed" >> "$bundle/COMMIT"
[[ $emulated -eq 0 ]] || echo "emulated GPU: times mean nothing" >> "$bundle/COMMIT"

mkdir -p "$(dirname "$output")"
tar -C "$staging" -c cohort-gpu-suite | gzip -9 > "$output"
size=$(stat -c %s "$output")
if [[ $size -gt $limit_bytes ]]; then
  rm "$output"
  fail "the bundle has $size bytes, more than $limit_bytes"
fi
(cd "$bundle" && find . -type f -printf '%10s  %P\n' | sort -k2 | grep -v ' golden/')
echo "$output: $size bytes of at most $limit_bytes, unpacked $(du -sb "$bundle" | cut -f1)"
