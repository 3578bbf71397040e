#!/usr/bin/env bash
# compile.sh COMMAND...: compiles a kernel source and keeps what ptxas -v says of it in OBJECT.ptxas, which
# tests/gpu/compile_report.py reads. Fails on C75xx: wgmma instructions that run one after the other.
set -uo pipefail

object=""
for ((i = 1; i < $#; ++i)); do
  [[ "${!i}" != -o ]] || { next=$((i + 1)) && object=${!next}; }
done
log=$object.ptxas
"$@" 2> "$log"
code=$?
# All else goes where it would have gone.
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$' "$log" >&2
if grep -qE '\bC75[0-9][0-9]\b' "$log"; then
  rm -f "$object"
  echo "$object: ptxas serialises asynchronous matrix instructions (above)" >&2
  exit 1
fi
exit $code
