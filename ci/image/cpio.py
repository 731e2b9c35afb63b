"""A cpio archive in the newc format, the same bytes for the same tree: sorted names, given times, all files
owned by root, inodes numbered in order."""

import os
import stat
from pathlib import Path

# /init needs these before devtmpfs is mounted; the kernel opens /dev/console for it.
CONSOLE = ("dev/console", stat.S_IFCHR | 0o600, 5, 1)
KMSG = ("dev/kmsg", stat.S_IFCHR | 0o600, 1, 11)


def _entry(inode, name, mode, mtime, data=b"", major=0, minor=0):
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, mtime, len(data), 0, 0, major, minor, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head.ljust(-(-len(head) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")


def archive(root, mtime):
    """The archive of the tree below `root`, with the two device nodes that the kernel wants."""
    root = Path(root)
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*"))
    out, inode = bytearray(), 1
    if "dev" not in names:
        names = sorted(names + ["dev"])
    for name in names:
        path = root / name
        if path.is_symlink():
            mode, data = stat.S_IFLNK | 0o777, os.readlink(path).encode()
        elif path.is_dir() or name == "dev":
            mode, data = stat.S_IFDIR | 0o755, b""
        else:
            mode, data = stat.S_IFREG | (0o755 if os.access(path, os.X_OK) else 0o644), path.read_bytes()
        out += _entry(inode, name, mode, mtime, data)
        inode += 1
    for name, mode, major, minor in (CONSOLE, KMSG):
        out += _entry(inode, name, mode, mtime, b"", major, minor)
        inode += 1
    out += _entry(0, "TRAILER!!!", 0, 0)
    return bytes(out.ljust(-(-len(out) // 512) * 512, b"\0"))
