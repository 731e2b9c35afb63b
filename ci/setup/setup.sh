#!/usr/bin/env bash
# Brings a bare Debian or Ubuntu machine to where ./build.sh works: host packages with apt (as root or with sudo),
# then ci/setup/setup.py for all that needs neither.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What the host itself must bring: "test for it|package". Everything else comes privately, from Debian's archive.
needed=(
  "command -v python3|python3"
  "python3 -c 'import venv, ensurepip'|python3-venv"
  "command -v cc|gcc"
  "test -e /usr/include/stdio.h|libc6-dev"
  "command -v git|git"
  "command -v xz|xz-utils"
  "command -v ip|iproute2"
  "command -v unshare|util-linux"
  "command -v nft|nftables"
  "command -v ping|iputils-ping"
  "command -v curl|curl"
  "command -v tmux|tmux"
  "test -x /usr/sbin/mke2fs -o -x /sbin/mke2fs|e2fsprogs"
  "test -e /usr/share/keyrings/debian-archive-keyring.gpg -o -n '${P2PMESH_KEYRING:-}'|debian-archive-keyring"
  "test -e /etc/ssl/certs/ca-certificates.crt|ca-certificates"
)
# Only the tests compare with it.
if [ "${1:-}" = --tests ]; then
  needed+=("command -v tshark|tshark" "command -v npm|npm")
fi

missing=()
for line in "${needed[@]}"; do
  if ! eval "${line%%|*}" >/dev/null 2>&1; then missing+=("${line#*|}"); fi
done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: this machine has no apt-get. Debian 12 or 13 or an Ubuntu LTS is needed; missing: ${missing[*]}" >&2
    exit 1
  fi
  elevate=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      elevate=(sudo env DEBIAN_FRONTEND=noninteractive)   # sudo clears the environment; a question would wait for ever
    else
      echo "setup: packages are missing and this is neither root nor sudo. Have an administrator run:" >&2
      echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
  fi
  echo "p2pmesh: installing with apt: ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  install=("${elevate[@]}" apt-get -q -y --no-install-recommends install "${missing[@]}")
  # Lists that are missing or old make the first try fail; then they are read afresh, once.
  if ! "${install[@]}" >&2; then
    "${elevate[@]}" apt-get -q update >&2 || true   # one broken source of several need not matter
    if ! "${install[@]}" >&2; then
      echo "setup: apt could not install: ${missing[*]} (its messages are above)" >&2
      exit 1
    fi
  fi
fi
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/setup.py" "$@"
