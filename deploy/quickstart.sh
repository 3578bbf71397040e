#!/usr/bin/env bash
# From nothing to a generation: installs what it needs, builds Cohort, makes a tiny checkpoint, serves
# it on two CPU ranks, generates through gRPC, prints the text and stops the server. Needs no terminal.
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

checkpoint=build/tiny-checkpoint
step "checkpoint ($checkpoint: random weights, so expect word salad)"
python3 deploy/make_tiny_checkpoint.py "$checkpoint"

step "serve on 2 ranks"
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
build/bin/cohort serve "$checkpoint" --tp 2 --listen 127.0.0.1:0 >"$work/ready" &
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

step "generate through $address"
build/bin/cohort generate --server "$address" --prompt "The river and the ranks" --max-tokens 24
step "status"
build/bin/cohort status --server "$address" >&2

step "stop the server"
kill -TERM "$server"
wait "$server"
server=
step "done"
