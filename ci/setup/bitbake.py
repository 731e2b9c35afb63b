"""A virtual environment with the pinned BitBake library, in the cache."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from common import BuildError, cache_dir, locked, say, versions

MINIMUM_PYTHON = (3, 9)


def python() -> pathlib.Path:
    """The environment's interpreter; made on first use with whatever python3 runs this."""
    if sys.version_info < MINIMUM_PYTHON:
        raise BuildError(f"python3 is {sys.version.split()[0]}; 3.9 or newer is needed")
    pins = versions()
    base = getattr(sys, "_base_executable", None) or sys.executable
    wanted = f"{pins['BITBAKE_SETUP_VERSION']} {pins['BITBAKE_SETUP_SHA256']} {sys.version.split()[0]}"
    folder = cache_dir() / f"venv-{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter, mark = folder / "bin/python3", folder / ".complete"
    with locked(cache_dir() / "venv.lock"):
        if interpreter.exists() and mark.exists() and mark.read_text() == wanted:
            return interpreter
        say(f"making a Python environment with bitbake-setup {pins['BITBAKE_SETUP_VERSION']}")
        if subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=False).returncode != 0:
            raise BuildError("python3 -m venv failed. On Debian and Ubuntu: apt-get install python3-venv")
        wanted_file = folder / "requirements.txt"
        wanted_file.write_text(f"bitbake-setup=={pins['BITBAKE_SETUP_VERSION']} --hash=sha256:{pins['BITBAKE_SETUP_SHA256']}\n")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        # The host's own pip configuration (index, proxy, certificates) is used. Older pips do not go on after a download
        # that was cut: twice.
        command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps",
                   "-r", str(wanted_file)]
        if not any(subprocess.run(command, check=False, env=environment).returncode == 0 for _ in range(2)):
            raise BuildError(f"bitbake-setup {pins['BITBAKE_SETUP_VERSION']} could not be installed from the Python package index "
                             "(see pip's message above)")
        mark.write_text(wanted)
    return interpreter
