#!/usr/bin/env bash
# The one command: builds, tests, runs, flashes. Each verb's work is in ci/; this file only finds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'END'
usage: ./build.sh [VERB] [OPTIONS]        (each verb: ./build.sh VERB --help)

  image     build the SD-card image into build/deploy (default)
  test      lint, unit tests, namespace tests, emulated Pis
  run       boot emulated Pis with the console in this terminal
  bundle    make an update bundle of the image that was built last
  sign      sign it; make, show and check keys and bundles
  flash     write the image to an SD card, and read it back
  bench     print the figures: sizes, times, memory
  lint      formatting, warnings, shell and Python checks, licences
  setup     only fetch and install what the other verbs need
  clean     remove build/ (the download cache stays)
  yocto     the image from source, with Yocto (comes later)
  help      this text

Environment: P2PMESH_CACHE (downloads; default ~/.cache/p2pmesh), P2PMESH_MIRROR (a Debian mirror; default: the
machine's own), P2PMESH_SECURITY_MIRROR (its security archive), P2PMESH_KEYRING (Debian's keys), P2PMESH_RUST=private
(Debian's Rust even if the host has one), P2PMESH_VERSION (of the image), SOURCE_DATE_EPOCH (time of its files).
END
}

help_for() {
  case "$1" in
    image) echo "usage: ./build.sh image [RECIPE...]
Sets up, then builds build/deploy/p2pmesh-rpi-arm64-<version>.img with .img.xz, .bmap, .slot, SHA256SUMS and manifest.
Only what changed is built again. RECIPE: build only these (for example mesh-router)." ;;
    test) echo "usage: ./build.sh test [--quick] [STAGE...]
Sets up, then runs all tests (--quick: lint, unit and provider tests). Logs are in build/test-logs." ;;
    run) with_python ci/emulator/run.py --help ;;
    flash) with_python ci/flash --help ;;
    bundle) echo "usage: ./build.sh bundle [--release N] [--floor N] [--needs N] [--except N] [-o FILE]
Makes build/deploy/p2pmesh-rpi-arm64-<version>.bundle of the newest slot there, without signatures (docs/UPDATE.md)." ;;
    sign) echo "usage: ./build.sh sign [BUNDLE] --key FILE...    (no BUNDLE: the newest in build/deploy)
       ./build.sh sign keygen FILE | show BUNDLE | verify BUNDLE --public HEX... [--threshold N]
Key ceremony and change of keys: docs/UPDATE.md." ;;
    bench) echo "usage: ./build.sh bench [image | names | radio | store [--quick] [--runs N] | update [--quick] | router [--quick] [--nodes N,...] [--scenario NAME,...] [--router NAME,...]]
names:  the name service: memory, start, answers, conflicts beside avahi; names five hops away (3 minutes).
radio:  mesh-radio on simulated radios: start to access point and mesh link, planning anew, memory, size.
store:  durable adds, many small files, GET and CAR, memory, start, beside kubo and dd; a file over three hops beside
        iperf3 (7 minutes; --quick: 2 minutes).
update: an installation beside a plain copy, memory, delta; on an emulated Pi the trial boot and 200 power cuts
        (--quick: without the emulated Pi).
image:  sizes by part, build times, boot phases on the emulated Pi, memory.
router: convergence, outages, control traffic, CPU and memory beside babeld and BIRD, on 25, 49 and 100 nodes in network
        namespaces (about 70 minutes; --quick: 3 minutes). Scenarios: cold idle cut death crash storm heal gateway carrier loss mobility
        memory.
        Routers: p2pmesh p2pmesh-fast babeld bird-babel bird-ospf." ;;
    lint) echo "usage: ./build.sh lint
rustfmt, clippy, shellcheck, Python syntax, licences and advisories of the crates." ;;
    setup) echo "usage: ./build.sh setup
Installs missing host packages with apt (root or sudo), fetches tools, Rust and BitBake's library into the cache." ;;
    clean) echo "usage: ./build.sh clean [--all]
Removes build/ and crates/target. --all: the download cache, too." ;;
    yocto) exec ci/yocto --help ;;
    help) usage ;;
    *) unknown "$1" ;;
  esac
}

unknown() {
  echo "build.sh: no verb '$1'" >&2
  usage >&2
  exit 2
}

# For what runs without the set-up.
with_python() {
  command -v python3 >/dev/null || { echo "build.sh: no python3 on this machine yet: run ./build.sh setup first" >&2; exit 1; }
  exec python3 "$@"
}

setup() {
  ci/setup/setup.sh "$@"
  # shellcheck source=/dev/null
  . build/env.sh
}

verb=${1:-image}
[ $# -eq 0 ] || shift
for word in "$@"; do
  if [ "$word" = --help ] || [ "$word" = -h ]; then help_for "$verb"; exit 0; fi
done
export PYTHONDONTWRITEBYTECODE=1

case "$verb" in
  image) setup; exec "$P2PMESH_PYTHON" ci/provider/build.py "$@" ;;
  test) setup --tests; exec ci/run-tests "$@" ;;
  run) setup
    exec python3 ci/emulator/run.py "$@" ;;
  flash) with_python ci/flash "$@" ;;
  bundle | sign) setup --rust-only; exec ci/bundle "$verb" "$@" ;;
  bench) setup; exec ci/bench "$@" ;;
  lint) setup --rust-only; exec ci/lint "$@" ;;
  setup) setup "$@" ;;
  clean) exec ci/clean "$@" ;;
  yocto) exec ci/yocto "$@" ;;
  help | -h | --help) if [ $# -gt 0 ]; then help_for "$1"; else usage; fi ;;
  *) unknown "$verb" ;;
esac
