#!/usr/bin/env bash
# Installs what building Cohort needs on Debian 12 (and, with --tests, what its tests need).
# Already installed packages are left alone; without root it uses sudo where that is there.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config python3
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev
  libpcre2-dev libutf8proc-dev nlohmann-json3-dev libcli11-dev libedit-dev libgloo-dev)
if [[ "${1:-}" == --tests ]]; then
  packages+=(git libgtest-dev libgmock-dev python3-venv clang-format-14 binutils procps)
fi

missing=()
for package in "${packages[@]}"; do
  if [[ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null)" != "ii "* ]]; then
    missing+=("$package")
  fi
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install_packages.sh: run as root, or install these first: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
