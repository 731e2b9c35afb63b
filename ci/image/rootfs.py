#!/usr/bin/env python3
"""The root image: a staged tree becomes a read-only file system with fixed times and the owners of a table.

mkfs reads owners from the files it packs, and the builder is rarely root, so the packing runs under
fakeroot: this file calls itself there (`rootfs.py pack ...`).

Owners table, one line a file: PATH MODE UID GID, MODE octal or `-` (as staged). What it does not name
belongs to root, directories 0755, files 0755 or 0644 by their owner's execute bit.
"""

import os
import subprocess
import sys
from pathlib import Path

IMAGE_UUID = "7032706d-6573-6800-8000-726f6f740000"


class RootError(Exception):
    """The tree or the owners table is wrong; the text says where."""


def read_owners(path):
    """{path: (mode or None, uid, gid)} of an owners table."""
    table = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            name, mode, uid, gid = words
            table[name.strip("/")] = (None if mode == "-" else int(mode, 8), int(uid), int(gid))
        except ValueError as error:
            raise RootError(f"{path}:{number}: expected PATH MODE UID GID ({error})") from error
    return table


def _apply(tree, owners):
    """Gives every file of `tree` its owner and mode (inside fakeroot)."""
    seen = set()
    for folder, folders, files in os.walk(tree):
        for name in folders + files + ([""] if folder == tree else []):
            path = os.path.join(folder, name) if name else tree
            relative = os.path.relpath(path, tree)
            mode, uid, gid = owners.get(relative, (None, 0, 0))
            seen.add(relative)
            os.lchown(path, uid, gid)
            if os.path.islink(path):
                continue
            if mode is None:
                mode = 0o755 if os.path.isdir(path) or os.stat(path).st_mode & 0o100 else 0o644
            os.chmod(path, mode)
    missing = sorted(set(owners) - seen)
    if missing:
        raise RootError(f"the owners table names files that are not in the root: {', '.join(missing)}")


def _pack(tree, owners_file, out, kind, epoch):
    _apply(tree, read_owners(owners_file) if owners_file != "-" else {})
    if kind == "erofs":
        command = ["mkfs.erofs", "-zlz4hc,12", "-C16384", "-Eforce-inode-compact,ztailpacking", "-x-1", f"-T{epoch}",
                   f"-U{IMAGE_UUID}", out, tree]
    else:
        command = ["mksquashfs", tree, out, "-comp", "zstd", "-Xcompression-level", "19", "-b", "256K", "-noappend", "-no-xattrs",
                   "-all-time", str(epoch), "-mkfs-time", str(epoch), "-no-progress", "-quiet"]
    env = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env)
    if result.returncode:
        raise RootError(f"{command[0]} failed: {result.stdout[-2000:]}")


def build(tree, owners_file, out, kind, epoch):
    """Packs `tree` into the file `out` as `kind` (erofs or squashfs)."""
    if kind not in ("erofs", "squashfs"):
        raise RootError(f"unknown root file system '{kind}': erofs or squashfs")
    command = ["fakeroot", sys.executable, __file__, "pack", str(tree), str(owners_file or "-"), str(out), kind, str(epoch)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise RootError(result.stderr.strip() or "fakeroot failed")


if __name__ == "__main__":
    try:
        _pack(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6]))
    except RootError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
