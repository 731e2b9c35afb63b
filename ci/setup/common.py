"""Things every build tool needs: the tree's root, the cache, the pinned versions, errors for people, a lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shlex
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = TREE / "build"


class BuildError(Exception):
    """What went wrong, in words a person can act on. Shown without a traceback."""


def cache_dir() -> pathlib.Path:
    """The download cache: P2PMESH_CACHE, else $XDG_CACHE_HOME/p2pmesh, else ~/.cache/p2pmesh."""
    chosen = os.environ.get("P2PMESH_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        chosen = os.path.join(base, "p2pmesh")
    path = pathlib.Path(chosen).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"the cache can't be made: {error.filename}: {error.strerror} (P2PMESH_CACHE names another place)") from error
    return path


def versions() -> dict[str, str]:
    """The NAME=value lines of ci/versions.sh."""
    found: dict[str, str] = {}
    for line in (TREE / "ci/versions.sh").read_text().splitlines():
        words = shlex.split(line, comments=True)
        if len(words) == 1 and "=" in words[0]:
            name, value = words[0].split("=", 1)
            found[name] = value
    return found


def say(message: str) -> None:
    """One line of progress, on standard error so that standard output stays for results."""
    print(f"p2pmesh: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """Hold an exclusive lock on `path` (made if missing), so that two builds can share one cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build that holds {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
