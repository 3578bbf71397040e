#!/usr/bin/env bash
# The steps of run.sh, one a call: bash steps.sh NAME [ARGUMENT...]. Exit code 0: passed; 77: skipped, the last line
# says why; anything else: failed. Lines of JSON on standard output are measurements (measurement.h).
set -uo pipefail

bin=$BUNDLE/bin models=$BUNDLE/models
checkpoint_folder=${CHECKPOINT_FOLDER:-/dev/shm}/cohort-gpu-suite  # removed at the end of a stage
work=$(mktemp -d)
server_pid="" server_address=""

stop_server() {
  [[ -n "$server_pid" ]] || return 0
  kill "$server_pid" 2> /dev/null
  wait "$server_pid" 2> /dev/null
  server_pid=""
}
trap 'stop_server; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT

fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "$*"; exit 77; }

# wait_for SECONDS WHAT COMMAND...: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2> /dev/null; do
    [[ $SECONDS -lt $end ]] || fail "$what did not come in time"
    sleep 0.02
  done
}

# serve MODEL FLAG...: `cohort serve` in the background, ready.
serve() {
  local model=$1
  shift
  [[ $DRY -eq 0 ]] || set -- "$@" --product-tuning off  # an emulated GPU would time for a minute
  : > "$work/ready"
  "$bin/cohort" serve "$model" --listen 127.0.0.1:0 "$@" > "$work/ready" 2>> "$work/server.log" &
  server_pid=$!
  local end=$((SECONDS + 50))
  until grep -q '^ready ' "$work/ready"; do
    kill -0 "$server_pid" 2> /dev/null || { cat "$work/server.log"; fail "the server ended"; }
    [[ $SECONDS -lt $end ]] || { cat "$work/server.log"; fail "the server was not ready in time"; }
    sleep 0.005
  done
  server_address=$(sed -n 's/^ready //p' "$work/ready")
}

# Flags of ranks on CUDA that may have to share one device.
cuda_flags() { # TP DP EP DTYPE
  echo --device cuda --tp "$1" --dp "$2" --ep "$3" --dtype "$4" --allow-shared-gpu --kv-memory 64MiB
}

prompts=("How many layers does Qwen2-7B have?" "What is 47 + 38?" "Does Qwen2-1.5B tie its embeddings?"
  "Repeat: the quick brown fox jumps over the lazy dog")
max_tokens=24
if [[ $DRY -eq 1 ]]; then  # an emulated GPU takes half a second a step
  prompts=("What is 47 + 38?") max_tokens=4
fi
scored="Qwen2-7B has 28 layers. What is tensor parallelism?"

# Ids that follow each prompt, one line a prompt; then one line of log-probabilities.
answers() {
  local prompt
  for prompt in "${prompts[@]}"; do
    "$bin/cohort" generate --server "$server_address" --chat "$prompt" --max-tokens "$max_tokens" --temperature 0 --json |
      grep -o '"token_ids":\[[0-9,]*\]' || return 1
  done
  "$bin/cohort" score --server "$server_address" --prompt "$scored" --json |
    grep -o '"logprobs":\[[^]]*\]' || return 1
}

# agree FILE FILE TOLERANCE: equal ids, and log-probabilities that differ by no more.
agree() {
  diff <(grep token_ids "$1") <(grep token_ids "$2") || fail "other tokens than on the CPU"
  paste -d '\n' <(grep logprobs "$1") <(grep logprobs "$2") | tr -d '[]' | awk -F: -v most="$3" '
    { n = split($2, values, ",") }
    NR == 1 { count = n; for (i = 1; i <= n; ++i) expected[i] = values[i]; next }
    n != count { print "other numbers of log-probabilities"; bad = 1; exit 1 }
    { for (i = 1; i <= n; ++i) { d = values[i] - expected[i]; if (d < 0) d = -d; if (!(d <= worst)) worst = d } }
    END { if (bad || NR != 2) exit 1; print "largest difference of a log-probability:", worst, "of at most", most
          exit !(worst <= most) }' || fail "other log-probabilities than on the CPU"
}

step_versions() {
  local file missing=""
  cat "$BUNDLE/COMMIT"
  uname -srm
  nproc
  if command -v nvidia-smi > /dev/null; then
    nvidia-smi
    nvidia-smi -q -d CLOCK,PERFORMANCE | head -n 60
  else
    echo "no nvidia-smi here"
  fi
  for file in nvcc ncu compute-sanitizer python3; do
    echo "$file: $(tool "$file" || echo "not here")"
  done
  "$bin/cohort" version || fail "cohort does not start"
  for file in "$bin"/* "$BUNDLE"/lib/*.so; do
    missing+=$(ldd "$file" 2> /dev/null | grep 'not found' | sed "s|^|$(basename "$file"): |")
  done
  [[ -z "$missing" ]] || fail "libraries are missing: $missing"
}

# tool NAME: its path, also where only the toolkit's folders have it.
tool() {
  command -v "$1" 2> /dev/null && return
  ls -d /usr/local/cuda/bin/"$1" /usr/local/cuda-*/bin/"$1" /opt/nvidia/*/*/"$1" /opt/nvidia/*/"$1" 2> /dev/null |
    head -n 1 | grep .
}

step_device() { "$bin/cohort_gpu_bench" decode --model="$models/pocket" --context=64 --steps=4 --rounds=1 --tune=0; }

step_kernels() { # SEED
  local filter='*'
  [[ $DRY -eq 0 ]] || filter='*Norm*:*Silu*:*Embed*'
  COHORT_TEST_DEVICE=cuda COHORT_TEST_SEED=$1 "$bin/cohort_kernels_test" --gtest_brief=1 --gtest_filter="$filter"
}

# A run that skipped everything has shown nothing.
step_collectives() { some_tests cohort_parallel_test '*Gpu*:*Cuda*:*Nccl*'; }
step_golden() {
  local filter='*CudaGives*'
  [[ $DRY -eq 0 ]] || filter='*CudaGives*/fiveheadstied'
  COHORT_GOLDEN_DIR=$BUNDLE/golden some_tests cohort_runtime_test "$filter"
}
step_programmatic() { some_tests cohort_runtime_test 'RecordedKernels*'; }
some_tests() { # PROGRAM FILTER
  COHORT_TEST_DEVICE=cuda "$bin/$1" --gtest_filter="$2" | tee "$work/tests"
  local code=${PIPESTATUS[0]}
  grep -q '\[  PASSED  \] [1-9]' "$work/tests" || fail "no test of $2 passed"
  return "$code"
}

# reference MODEL DTYPE: `expected` is the file of one CPU rank's answers, made once.
reference() {
  expected=$LOGS/reference-$1-$2
  if [[ ! -s "$expected" ]]; then
    serve "$models/$1" --device cpu --dtype "$2" --kv-memory 64MiB
    answers > "$work/reference" || fail "no answers from the CPU"
    stop_server
    mv "$work/reference" "$expected"
  fi
}

step_tokens() { # MODEL TP,DP,EP
  local model=$1 tp dp ep dtype expected tolerance
  IFS=, read -r tp dp ep <<< "$2"
  for dtype in fp32 bf16; do
    reference "$model" "$dtype"
    # In fp32 only the order of sums differs. In bf16 every rounding may: a log-probability of this model then moves
    # by a few hundredths, and the answers have a lead of 2 over the next best token.
    tolerance=$([[ $dtype == fp32 ]] && echo 0.001 || echo 0.25)
    # shellcheck disable=SC2046
    serve "$models/$model" $(cuda_flags "$tp" "$dp" "$ep" "$dtype")
    answers > "$work/answers" || { cat "$work/server.log"; fail "no answers in $dtype"; }
    stop_server
    echo "$dtype:"
    agree "$expected" "$work/answers" "$tolerance"
  done
}

step_lost_rank() {
  # shellcheck disable=SC2046
  serve "$models/pocket" $(cuda_flags 2 1 1 bf16)
  answers > "$work/before" || fail "no answers"
  "$bin/cohort" generate --server "$server_address" --prompt "one two" --max-tokens 480 --ignore-eos \
    > "$work/stream" 2> "$work/stream.errors" &
  local stream=$!
  wait_for 30 "the first token of the stream" test -s "$work/stream"
  local rank
  rank=$("$bin/cohort" status --server "$server_address" --json | grep -o '"pid":[0-9]*' | tail -n 1 | cut -d: -f2)
  [[ -n "$rank" ]] || fail "the status names no rank"
  kill -9 "$rank"
  wait "$stream" && fail "the request ended as if nothing had happened"
  cat "$work/stream.errors"
  wait_for 40 "an answer of the new epoch" \
    sh -c "'$bin/cohort' generate --server $server_address --prompt 'one two' --max-tokens 1 > /dev/null"
  answers > "$work/after" || fail "no answers in the new epoch"
  diff "$work/before" "$work/after" || fail "other answers in the new epoch"
  "$bin/cohort" status --server "$server_address"
}

step_sanitizer() { # TOOL
  local sanitizer
  local filter='*'
  sanitizer=$(tool compute-sanitizer) || skip "no compute-sanitizer here"
  [[ $DRY -eq 0 ]] || filter='*Silu*'
  COHORT_TEST_DEVICE=cuda "$sanitizer" --tool "$1" --error-exitcode 9 \
    "$bin/cohort_kernels_test" --gtest_brief=1 --gtest_filter="$filter"
}

step_limits() {
  [[ -x "$bin/cohort_gpu_limits" ]] || skip "the bundle has no cohort_gpu_limits"
  if [[ $DRY -eq 1 ]]; then
    "$bin/cohort_gpu_limits" --bytes=262144 --product=64 --nodes=4 --repetitions=2
  else
    "$bin/cohort_gpu_limits"
  fi
}

# bench SUBCOMMAND FLAG... | -- DRY_FLAG...: with the second flags in a dry run.
bench() {
  local command=$1 real=() small=() is_small=0 flag
  shift
  for flag in "$@"; do
    if [[ "$flag" == -- ]]; then is_small=1
    elif [[ $is_small -eq 1 ]]; then small+=("$flag")
    else real+=("$flag"); fi
  done
  if [[ $DRY -eq 1 ]]; then
    "$bin/cohort_gpu_bench" "$command" "${small[@]}" --rounds=1
  else
    "$bin/cohort_gpu_bench" "$command" "${real[@]}"
  fi
}

step_decode() { # MODEL BATCH CONTEXT STEPS FLAG...
  local pocket=pocket
  [[ "$1" != *-A* ]] || pocket=pocket-moe
  bench decode --model="$1" --batches="$2" --context="$3" --steps="$4" "${@:5}" \
    -- --model="$models/$pocket" --batches=2 --context=16 --steps=2 --tune=0
}
step_decode_small() { step_decode Qwen2-0.5B 1 128 128 && step_decode Qwen2-1.5B 1 128 128; }
step_decode_driver() { # MODEL on|off SUFFIX: one kernel for all layers, or one for each operation
  bench decode --model="$1" --batches=1 --context=128 --steps=128 --persistent-step="$2" --suffix="$3" \
    -- --model="$models/pocket" --batches=2 --context=16 --steps=2 --persistent-step="$2" --suffix="$3"
}
step_decode_drivers() {
  step_decode_driver Qwen2-0.5B off .separate && step_decode_driver Qwen2-1.5B off .separate &&
    step_decode_driver Qwen2-7B on .persistent
}
step_decode_checkpoint() {
  bench decode --model=Qwen2-7B --checkpoint="$checkpoint_folder" --batches=1 --context=128 --steps=64 \
    -- --model=pocket --checkpoint="$models/pocket" --context=16 --steps=2 --tune=0
}
step_prefill() { # MODEL FLAG...
  bench prefill --model="$1" --prompts=4096 --rounds=5 "${@:2}" \
    -- --model="$models/pocket" --prompts=32 --batch-tokens=16 --tune=0
}
step_attention() {
  bench attention -- --contexts=32 --batches=1,2 --prompts=16 --chunk=4 --prefixes=32 --heads=4 --kv-heads=2 --head-dim=64 --calls=2 --memory=1
}
step_experts() { bench experts -- --model="$models/pocket-moe" --batches=1,2 --tokens=16 --calls=2; }
step_products() { bench products -- --model="$models/pocket" --tokens=1,20 --calls=2; }

step_load() {
  local free
  if [[ $DRY -eq 0 && ! -e "$checkpoint_folder" ]]; then
    free=$(df --output=avail -B 1000000000 "$(dirname "$checkpoint_folder")" | tail -n 1)
    [[ $free -ge 17 ]] || skip "only $free GB free at $(dirname "$checkpoint_folder"): set CHECKPOINT_FOLDER"
  fi
  bench load --model=Qwen2-7B --folder="$checkpoint_folder" --rounds=3 -- --model=pocket --folder="$models/pocket"
}

step_start() {
  local model=$checkpoint_folder name=Qwen2-7B round begin end
  [[ $DRY -eq 0 ]] || model=$models/pocket name=pocket
  [[ -d "$model" ]] || skip "no checkpoint: the step load did not make one"
  local seconds=()
  for round in 1 2 3; do
    begin=$(date +%s%N)
    serve "$model" --device cuda --max-model-len 512
    "$bin/cohort" generate --server "$server_address" --token-ids 1,2,3 --max-tokens 1 --json || fail "no token"
    end=$(date +%s%N)
    seconds+=("$(awk -v ns=$((end - begin)) 'BEGIN { printf "%.4f", ns / 1e9 }')")
    stop_server
  done
  printf '%s\n' "${seconds[@]}" | sort -n | awk -v name="$name" '
    { s[NR] = $1 }
    END { printf "{\"row\": \"start.%s\", \"seconds\": %s, \"best\": %s, \"worst\": %s, \"n\": %d, \"note\": \"\"}\n",
                 name, s[int((NR + 1) / 2)], s[1], s[NR], NR }'
}

# One rank of eight, through the server: milliseconds per token after the first.
step_simulate() {
  local name=Qwen2-72B model=Qwen2-72B tokens=64
  "$bin/cohort" serve --help | grep -q -- --simulate-rank || skip "this program has no --simulate-rank"
  [[ $DRY -eq 0 ]] || name=pocket model=$models/pocket tokens=8
  serve "$model" --device cuda --load-format dummy --simulate-rank 0/8 --max-model-len 512
  "$bin/cohort" generate --server "$server_address" --token-ids 1,2,3 --max-tokens "$tokens" --ignore-eos --json |
    tee "$work/answer"
  grep -o '"[a-z_]*milliseconds":[0-9.e+-]*' "$work/answer" | awk -F'[":]+' -v name="$name" -v tokens="$tokens" '
    { value[$2] = $3 }
    END { s = (value["total_milliseconds"] - value["time_to_first_token_milliseconds"]) / (tokens - 1) / 1000
          if (!(s > 0)) exit 1
          printf "{\"row\": \"simulate.%s.tp8\", \"seconds\": %.6g, \"n\": %d, \"note\": \"\"}\n", name, s, tokens - 1 }'
}

step_profile() {
  local ncu metrics model=Qwen2-7B code
  ncu=$(tool ncu) || skip "no ncu here"
  metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,lts__t_sector_hit_rate.pct,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum
  metrics+=,launch__registers_per_thread,launch__occupancy_limit_shared_mem
  [[ $DRY -eq 0 ]] || model=$models/pocket
  # Kernels one after the other: overlap by programmatic launch does not show here. Those of decode steps alone, about
  # 140 a step of 7B; the row's name keeps its time from standing for the measured one.
  "$ncu" --clock-control none --metrics "$metrics" --kernel-name 'regex:^(Stream|DecodeAttention)Kernel' \
    --launch-skip 150 --launch-count 40 \
    "$bin/cohort_gpu_bench" decode --model="$model" --steps=2 --rounds=1 --tune=0 --suffix=.profiled | tee "$work/profile"
  code=${PIPESTATUS[0]}
  ! grep -q ERR_NVGPUCTRPERM "$work/profile" || skip "this user may not read the GPU's counters (ERR_NVGPUCTRPERM)"
  return "$code"
}

step_peers() { # WHAT
  local python=${PEERS_PYTHON:-python3} folder=$checkpoint_folder device=cuda flags=() modules=(torch) module
  [[ $DRY -eq 0 ]] || folder=$models/pocket device=cpu flags=(--small)
  command -v "$python" > /dev/null || skip "no python3 here"
  [[ "$1" != transformers ]] || modules+=(transformers)
  for module in "${modules[@]}"; do
    "$python" -c "import $module" 2> /dev/null || skip "python3 has no $module here"
  done
  [[ $DRY -eq 1 ]] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    skip "the torch of python3 sees no GPU"
  [[ "$1" != transformers || -e "$folder/model.safetensors" || $DRY -eq 1 ]] ||
    skip "no checkpoint: the step checkpoint did not make one"
  "$python" "$BUNDLE/suite/peers.py" "$1" --device "$device" --checkpoint "$folder" --results "$RESULTS" ${flags[@]+"${flags[@]}"}
}

step_clean() { rm -rf "$checkpoint_folder"; }

name=$1
shift
"step_$name" "$@"
