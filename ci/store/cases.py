"""Random files and directory trees to compare CIDs on: sizes around every boundary, names of every kind."""

import os
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
V0_CHUNK, V1_CHUNK = 256 * KIB, MIB
LIMIT = 256 * KIB   # above it a directory is sharded

# Parts of names: combining and composed forms of the same letter are different names.
LETTERS = ["a", "B", "7", "-", "_", " ", ".", "%", "%2F", "#", "?", "&", "'", '"', "<", "é", "e\u0301", "ß", "İ", "漢", "字", "😀",
           "👩\u200d👧", "ع", "\u200f", "\u00a0", "ﬁ", "\t", "~", "$", "*", ":", "|"]
BACKSLASH = "\\"   # the npm importer takes it for an escape in a path


class Cases:
    """Makes cases below `root`, each an entry of a batch folder, so that kubo can be asked for many at once."""

    def __init__(self, root, rng, per_batch):
        self.root, self.rng, self.per_batch = Path(root), rng, per_batch
        self.batches = {}
        self.count = 0
        self.x = self.root / "x"
        self.x.write_bytes(b"x")

    def place(self, batch=None):
        """The path of the next case."""
        batch = batch or f"b{self.count // self.per_batch:03}"
        path = self.root / batch / f"c{self.count:04}"
        path.parent.mkdir(exist_ok=True)
        self.batches.setdefault(batch, []).append(path.name)
        self.count += 1
        return path

    def file(self, size, fill=None, batch=None):
        """A file of random bytes, or of one byte again and again."""
        path = self.place(batch)
        path.write_bytes(self.rng.randbytes(size) if fill is None else fill * size)
        return path

    def name(self, backslash):
        """A name of 1 to 12 parts that is not hidden."""
        letters = LETTERS + [BACKSLASH] * backslash
        while True:
            name = "".join(self.rng.choices(letters, k=self.rng.randint(1, 12))).strip()
            if name and not name.startswith("."):
                return name

    def tree(self, depth, backslash=False, batch=None):
        """A directory with directories, files, symlinks and hidden files in it."""
        path = self.place(batch)
        self._fill(path, depth, backslash)
        return path

    def _fill(self, path, depth, backslash):
        path.mkdir()
        for _ in range(self.rng.choice([0, 1, 2, 3, 6])):
            child = path / self.name(backslash)
            if os.path.lexists(child):
                continue
            kind = self.rng.random()
            if kind < 0.35 and depth > 0:
                self._fill(child, depth - 1, backslash)
            elif kind < 0.5:
                child.symlink_to(self.rng.choice(["x", "../x", "/absolute", "nowhere/é 漢", "a" * 300]))
            elif kind < 0.55:
                (path / ("." + child.name)).write_bytes(b"hidden")
            else:
                child.write_bytes(self.rng.randbytes(self.rng.choice([0, 1, 10, 100, 3000])))

    def deep(self, depth):
        """Directories in one another."""
        path = below = self.place()
        path.mkdir()
        for _ in range(depth):
            below = below / self.name(False)
            below.mkdir()
        (below / "end").write_bytes(b"end")
        return path

    def wide(self, sizes, batch):
        """A directory of files named in so many bytes."""
        path = self.place(batch)
        path.mkdir()
        for number, size in enumerate(sizes):
            name = f"{number:05}" + "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz-_", k=size - 5))
            os.link(self.x, path / name)
        return path


def links_bytes(total, name):
    """Lengths of names whose links have `total` bytes as `unixfs-v0-2015` counts them: the name, and a CID of 34."""
    count, rest = divmod(total, name + 34)
    return _spread(count, name, rest)


def _spread(count, name, rest):
    """`count` names, the first ones longer so that `rest` bytes are used up."""
    sizes = [name] * count
    for number in range(count):
        more = min(rest, 20)
        sizes[number] += more
        rest -= more
    return sizes


def block_bytes(total, name):
    """Lengths of names whose directory has a block of `total` bytes: each link of `x` (a raw leaf of one byte) takes 42 bytes
    and its name, in two bytes more, as long as these fit in a varint of one byte; the directory's own data takes 4."""
    count, rest = divmod(total - 4, name + 44)
    return _spread(count, name, rest)
