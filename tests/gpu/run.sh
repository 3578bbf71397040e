#!/usr/bin/env bash
# Checks and measures Cohort on the GPU of this machine, from the unpacked bundle of pack.sh. Each stage takes at most
# 9 minutes, prints a table and leaves every step's log in FOLDER ($OUT where that is set, else ./gpu-logs).
#   ./run.sh check [FOLDER]     every operation against the CPU, models on 1, 2 and 4 ranks, golden answers, a lost rank
#   ./run.sh bench [FOLDER]     the table of RESULTS.md
#   ./run.sh peers [FOLDER]     Hugging Face transformers and PyTorch's attention on the same GPU
#   ./run.sh table [FILE...]    the table again, of results.jsonl files
# --dry-run: tiny sizes, on whatever plugin lies in lib/: tries the script itself out, measures nothing of worth.
set -uo pipefail

suite=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export BUNDLE=$(dirname "$suite")
readonly stage_seconds=530

usage() { sed -n '4,8s/^# *//p' "$suite/run.sh" >&2; exit 2; }

dry=0 stage="" arguments=()
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry=1 ;;
    -*) usage ;;
    *) if [[ -z "$stage" ]]; then stage=$argument; else arguments+=("$argument"); fi ;;
  esac
done
[[ "$stage" =~ ^(check|bench|peers|table)$ ]] || usage
if [[ "$stage" == table ]]; then
  exec awk -f "$suite/table.awk" "$suite/rows.tsv" ${arguments[@]+"${arguments[@]}"}
fi
export DRY=$dry
export LOGS=${arguments[0]:-${OUT:-$PWD/gpu-logs}}
mkdir -p "$LOGS" || exit 1
LOGS=$(cd "$LOGS" && pwd)
export RESULTS=$LOGS/$stage.jsonl
{ : > "$RESULTS"; } 2> /dev/null || { echo "run.sh: cannot write in $LOGS: name another FOLDER" >&2; exit 1; }

# Where CUDA's libraries may lie beside the system's folders: the toolkit's, the driver's, PyTorch's wheels.
cuda_folders() {
  local site folder
  for site in /usr/lib/python3*/*-packages /usr/local/lib/python3*/*-packages /opt/*/lib/python3*/site-packages \
    /opt/*/.venv/lib/python3*/site-packages "${VIRTUAL_ENV:-/nowhere}"/lib/python3*/site-packages \
    $(command -v python3 > /dev/null && python3 -c 'import site, sys; print(*site.getsitepackages(), *sys.path)' 2> /dev/null); do
    for folder in "$site"/nvidia/*/lib; do
      [[ -d "$folder" ]] && echo "$folder"
    done
  done
  ls -d /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 /usr/local/nvidia/lib64 2> /dev/null
}
libraries=$(cuda_folders | awk '!seen[$0]++' | paste -sd:)
export LD_LIBRARY_PATH=${libraries}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Algorithms that `serve` has found by the clock stay in FOLDER too, whatever the home directory is.
export XDG_CACHE_HOME=$LOGS/cache
export PYTHONUNBUFFERED=1 LC_ALL=C
# Ranks of one process must not load code while another's kernel waits for theirs. Not where time and memory are
# measured: all of cuBLASLt, and of PyTorch, would be loaded at the start, which `serve` does not do.
[[ "$stage" != check ]] || export CUDA_MODULE_LOADING=EAGER

summary=() failures=0
record() { # NAME STATE SECONDS
  summary+=("$(printf '%-28s %-34s %4d s' "$1" "$2" "$3")")
  echo "${summary[-1]}"
}

# step NAME SECONDS COMMAND...: at most so long, and never longer than the stage has left.
step() {
  local name=$1 seconds=$2 begin=$SECONDS code
  shift 2
  local left=$((stage_seconds - SECONDS))
  if [[ $left -lt 5 ]]; then
    record "$name" "not run: the stage's time is over" 0
    failures=$((failures + 1))
    return
  fi
  [[ $seconds -lt $left ]] || seconds=$left
  timeout -k 5 "$seconds" bash "$suite/steps.sh" "$@" > "$LOGS/$name.log" 2>&1 < /dev/null
  code=$?
  # A dry run's rows have other names, so that they never stand for measured ones.
  grep '^{"row": ' "$LOGS/$name.log" | sed "s/\"row\": \"/&$([[ $dry -eq 0 ]] || echo dry.)/" >> "$RESULTS"
  case $code in
    0) record "$name" ok $((SECONDS - begin)) ;;
    77) record "$name" "skipped: $(tail -n 1 "$LOGS/$name.log")" $((SECONDS - begin)) ;;
    124 | 137) failures=$((failures + 1)); record "$name" "FAILED: longer than $seconds s" $((SECONDS - begin)) ;;
    *) failures=$((failures + 1)); record "$name" "FAILED: exit code $code" $((SECONDS - begin)) ;;
  esac
}

stage_check() {
  local seed model layout tool seeds=(0 1 2 3) dense=(1,1,1 2,1,1 4,1,1) sparse=(2,1,2 1,2,2 2,2,4)
  if [[ $dry -eq 1 ]]; then
    seeds=(0) dense=(2,1,1) sparse=(2,1,2)
  fi
  step versions 30 versions
  step device 30 device
  for seed in "${seeds[@]}"; do
    step "kernels-seed-$seed" 60 kernels "$seed"
  done
  step collectives 60 collectives
  step golden 60 golden
  step programmatic 60 programmatic
  for model in pocket pocket-moe; do
    for layout in "${dense[@]}"; do
      step "tokens-$model-$layout" 60 tokens "$model" "$layout"
    done
  done
  for layout in "${sparse[@]}"; do
    step "tokens-pocket-moe-$layout" 60 tokens pocket-moe "$layout"
  done
  step lost-rank 60 lost_rank
  for tool in memcheck racecheck synccheck; do
    step "sanitizer-$tool" 120 sanitizer "$tool"
  done
}

stage_bench() {
  step versions 30 versions
  step limits 60 limits
  step decode-7b 45 decode Qwen2-7B 1 128 64
  step decode-small 45 decode_small
  step decode-drivers 60 decode_drivers
  step attention 60 attention
  step experts 60 experts
  step decode-7b-batch 60 decode Qwen2-7B 64 1024 32
  step prefill-7b 45 prefill Qwen2-7B
  step decode-72b 60 decode Qwen2-72B 1 128 16 --host-embedding=1
  step decode-57b 60 decode Qwen2-57B-A14B 1 128 32
  step prefill-72b 60 prefill Qwen2-72B --host-embedding=1
  step load 75 load
  step start 60 start
  step simulate 45 simulate
  step products 45 products
  step profile 60 profile
}

stage_peers() {
  step versions 30 versions
  step checkpoint 75 load
  step decode-7b 60 decode_checkpoint
  step attention 60 attention
  step transformers 240 peers transformers
  step sdpa 90 peers sdpa
}

echo "$stage of $(paste -sd' ' "$BUNDLE/COMMIT"), $(date -u '+%Y-%m-%d %H:%M UTC'), logs in $LOGS"
"stage_$stage"
bash "$suite/steps.sh" clean > "$LOGS/clean.log" 2>&1
{
  echo
  if [[ "$stage" != check ]]; then
    awk -f "$suite/table.awk" "$suite/rows.tsv" "$RESULTS"
    echo
  fi
  printf '%s\n' "${summary[@]}"
  echo "$failures failed, $SECONDS s in all"
} | tee "$LOGS/$stage.txt"
[[ $failures -eq 0 ]]
