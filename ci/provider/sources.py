"""SRC_URI of a recipe: only files of the tree. Crates come through cargo, under Cargo.lock's checksums."""

from __future__ import annotations

import os
import pathlib
import shutil

from common import BuildError
from metadata import where


def entries(d) -> list[tuple[str, pathlib.Path]]:
    """(name in the unpack folder, file or folder in the tree) for every file:// of SRC_URI."""
    search = (d.getVar("FILESEXTRAPATHS") or "").replace("__default:", "").split(":") + (d.getVar("FILESPATH") or "").split(":")
    found = []
    for uri in (d.getVar("SRC_URI") or "").split():
        scheme, _, rest = uri.partition("://")
        name = rest.split(";", 1)[0]
        if scheme == "crate":
            continue
        if scheme != "file":
            raise BuildError(f"{where(d, 'SRC_URI', uri)}: {uri}: this provider takes only file:// and crate:// sources")
        places = [pathlib.Path(folder) / name for folder in search if folder] if not name.startswith("/") else [pathlib.Path(name)]
        place = next((place for place in places if os.path.lexists(place)), None)
        if place is None:
            raise BuildError(f"{where(d, 'SRC_URI', name)}: file://{name} of recipe {d.getVar('PN')} is in none of: "
                             + " ".join(str(place.parent) for place in places))
        found.append((name, place))
    return found


def unpack(d) -> None:
    """Copy the sources into UNPACKDIR; with UNPACK_LINKS they are linked and used where they are."""
    target = pathlib.Path(d.getVar("UNPACKDIR"))
    for name, place in entries(d):
        goal = target / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if d.getVar("UNPACK_LINKS") == "1":
            goal.symlink_to(place)
        elif place.is_dir():
            shutil.copytree(place, goal, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "target"))
        else:
            shutil.copy2(place, goal)
