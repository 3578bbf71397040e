#!/usr/bin/env bash
# From nothing to a right answer: installs what it needs, builds Cohort, serves the checkpoint that is part
# of it on two CPU ranks, asks it questions through gRPC, checks the answers and stops the server. Needs no
# terminal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '== %s\n' "$*" >&2; }

step "packages"
bash deploy/install_packages.sh
step "build (build/bin/cohort; a few minutes the first time)"
mkdir -p build
log=build/quickstart.log
if ! { cmake --preset release -DCOHORT_TESTS=OFF && cmake --build --preset release --target cohort; } >"$log" 2>&1; then
  tail -n 60 "$log" >&2
  echo "quickstart: the build failed; all of it is in $log" >&2
  exit 1
fi

step "serve the pocket checkpoint on 2 ranks"
work=$(mktemp -d)
server=
stop_server() {
  if [[ -n "$server" ]]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm -rf "$work"
}
trap stop_server EXIT
build/bin/cohort serve pocket --tp 2 --listen 127.0.0.1:0 >"$work/ready" &
server=$!
for _ in $(seq 600); do
  if grep -q '^ready ' "$work/ready"; then break; fi
  if ! kill -0 "$server" 2>/dev/null; then
    echo "quickstart: the server ended before it was ready (its log is above)" >&2
    exit 1
  fi
  sleep 0.1
done
address=$(sed -n 's/^ready //p' "$work/ready")
if [[ -z "$address" ]]; then
  echo "quickstart: the server was not ready after 60 seconds" >&2
  exit 1
fi

# ask QUESTION ANSWER: prints both, and fails when the answer is another one.
ask() {
  local answer
  if ! answer=$(build/bin/cohort generate --server "$address" --chat "$1" 2>"$work/errors"); then
    cat "$work/errors" >&2
    exit 1
  fi
  printf '%s\n  %s\n' "$1" "$answer"
  if [[ "$answer" != "$2" ]]; then
    echo "quickstart: the answer should be: $2" >&2
    exit 1
  fi
}

step "ask through $address"
ask "How many layers does Qwen2-7B have?" "Qwen2-7B has 28 layers."
ask "What is 47 + 38?" "47 + 38 = 85."
step "status"
build/bin/cohort status --server "$address" >&2

step "stop the server"
kill -TERM "$server"
wait "$server"
server=
step "done"
