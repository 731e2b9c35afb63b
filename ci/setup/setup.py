"""Everything a build needs, from nothing: host packages, private tools, Rust, BitBake's library. Run by ci/setup/setup.sh.

Writes build/env.sh, which the other scripts source.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys

import bitbake
import ipfs
import private
import rust
from common import BUILD, BuildError, cache_dir, say, versions
from debs import mirrors


def qemu_folder() -> str | None:
    """None if the host's QEMU is new enough, else the bin/ of a private one."""
    found = shutil.which("qemu-system-aarch64")
    if found:
        text = subprocess.run([found, "--version"], check=False, capture_output=True, text=True).stdout
        number = re.search(r"version (\d+)\.(\d+)", text)
        wanted = tuple(int(part) for part in versions()["QEMU_MINIMUM"].split("."))
        if number and (int(number[1]), int(number[2])) >= wanted:
            return None
        say(f"the host's QEMU is too old ({text.splitlines()[0] if text else 'unknown'}): using Debian's, privately")
    return str(private.install("qemu") / "bin")


def peers() -> None:
    """Other implementations. Without them the tests beside them are skipped; nothing else needs them."""
    for what, fetch in [("mDNS", lambda: private.install("names")), ("exFAT", lambda: private.install("exfat")), ("IPFS (kubo)", ipfs.kubo),
                        ("IPFS (npm)", ipfs.npm)]:
        try:
            fetch()
        except (BuildError, OSError) as error:
            say(f"other {what} implementations can't be fetched, tests beside them will be skipped: {error}")


def write_environment(folders: list[str], variables: dict[str, str]) -> None:
    """build/env.sh: PATH and a few variables, for bash."""
    BUILD.mkdir(exist_ok=True)
    lines = ["# Made by ci/setup/setup.py; source it."]
    lines += [f"export {name}='{value}'" for name, value in variables.items()]
    lines.append('export PATH="' + ":".join(folders) + ':$PATH"')
    target = BUILD / "env.sh"
    text = "\n".join(lines) + "\n"
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rust-only", action="store_true", help="only what lint and unit tests need: no QEMU, no image tools")
    parser.add_argument("--tests", action="store_true", help="also the programs that tests compare with")
    chosen = parser.parse_args()
    try:
        say(f"set-up; downloads are kept in {cache_dir()}")
        mirrors()
        folders = [str(private.install("image") / "bin")]
        variables: dict[str, str] = {}
        chain = rust.toolchain()
        environment = chain.environment()
        if chain.folder is not None:
            folders.insert(0, str(chain.folder))
            variables.update({name: value for name, value in environment.items() if name != "PATH"})
        if not chosen.rust_only:
            rust.cross(chain)
            variables["P2PMESH_PYTHON"] = str(bitbake.python())
            qemu = qemu_folder()
            if qemu:
                folders.append(qemu)
            if chosen.tests and private.host_arch() == "amd64":
                private.install("wireless")
                if not shutil.which("qemu-system-x86_64"):
                    private.install("virtual")
        if chosen.tests:
            peers()
        write_environment(folders, variables)
        say(f"set-up done: Rust {chain.version} ({'the host has it' if chain.folder is None else 'private'})")
    except BuildError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:   # a full disk, a folder of somebody else's
        print(f"setup: {error.filename or cache_dir()}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main())
