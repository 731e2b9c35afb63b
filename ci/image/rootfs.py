"""The root image: a staged tree becomes a read-only file system with fixed times and the owners of a table.

The builder is rarely root, so owners can't be given to files. The tree goes to mkfs as a tar archive made here: names in
order, one time for all, owners and modes from the table. (fakeroot would do, but not for mkfs run with its own libraries.)

Owners table, one line a file: PATH MODE UID GID, MODE octal or `-` (as staged). What it does not name
belongs to root, directories 0755, files 0755 or 0644 by their owner's execute bit.
"""

import os
import subprocess
import tarfile
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


def pack(tree, owners, out, epoch):
    """Writes `tree` as a tar archive with every file's owner and mode."""
    names = sorted(os.path.relpath(os.path.join(folder, name), tree)
                   for folder, folders, files in os.walk(tree) for name in folders + files)
    missing = sorted(set(owners) - set(names))
    if missing:
        raise RootError(f"the owners table names files that are not in the root: {', '.join(missing)}")
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in [".", *names]:
            path = os.path.join(tree, name)
            entry = archive.gettarinfo(path, name)
            # A second name of the same file is written out again; mkfs finds equal contents by itself.
            if entry.islnk():
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", os.path.getsize(path)
            mode, entry.uid, entry.gid = owners.get(name, (None, 0, 0))
            if entry.issym():
                mode = 0o777
            elif mode is None:
                mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            entry.mode, entry.mtime, entry.uname, entry.gname = mode, epoch, "", ""
            if entry.isreg():
                with open(path, "rb") as source:
                    archive.addfile(entry, source)
            else:
                archive.addfile(entry)


def build(tree, owners_file, out, kind, epoch):
    """Packs `tree` into the file `out` as `kind` (erofs or squashfs)."""
    owners = read_owners(owners_file) if owners_file else {}
    archive = f"{out}.tar"
    if kind == "erofs":
        command = ["mkfs.erofs", "-zlz4hc,12", "-C16384", "-Eforce-inode-compact,ztailpacking", "-x-1", f"-T{epoch}",
                   f"-U{IMAGE_UUID}", "--tar=f", str(out), archive]
    elif kind == "squashfs":
        command = ["mksquashfs", "-", str(out), "-tar", "-comp", "zstd", "-Xcompression-level", "19", "-noappend",
                   "-no-xattrs", "-all-time", str(epoch), "-mkfs-time", str(epoch), "-default-mode", "755", "-default-uid", "0",
                   "-default-gid", "0", "-no-progress", "-quiet"]
    else:
        raise RootError(f"unknown root file system '{kind}': erofs or squashfs")
    pack(tree, owners, archive, epoch)
    try:
        with open(archive, "rb") as stream:
            env = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
            result = subprocess.run(command, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                    check=False, env=env)
    finally:
        os.unlink(archive)
    if result.returncode:
        raise RootError(f"{command[0]} failed: {result.stdout[-2000:]}")
