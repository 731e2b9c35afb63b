"""Systems for the update tests: the image's own with other fields in the header or other files in the root image, tiny
ones that no board could start, and their bundles, good and bad."""

import hashlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci/image"))
import envsector  # noqa: E402
import slot  # noqa: E402

SECTOR = 512
BOARD = "brcm,bcm2837"
PREFIX, SIGNATURE, ENTRY = 16, 96, 40
TABLE_HASH = 512 + 8 + 8  # where the manifest has the table's SHA-256


def program(name):
    """One of this project's programs for the host: of the binaries stage, or of a developer's build."""
    for kind in ("release", "debug"):
        path = ROOT / f"crates/target/{kind}/{name}"
        if path.exists():
            return path
    raise FileNotFoundError(f"no {name}; build it: cargo build --release -p {name} (in crates/)")


def run(*words):
    """Runs a program; returns what it prints."""
    result = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssertionError(f"{words}: {result.stdout[-3000:]}{result.stderr[-3000:]}")
    return result.stdout


def tiny(version="0.1-tiny", root=b"root" * 1024):
    """A slot that passes every check but has nothing in it to start."""
    return slot.build(version, b"initramfs " * 500, b"kernel " * 500, root)[0]


class Systems:
    """Makes slots out of the one that is on `card` now, and bundles of them, in `folder`. `keys`: the public ones of three
    keys; a node says of test keys that they are."""

    def __init__(self, card, folder, test_keys=True):
        self.folder, self.tool = Path(folder), program("mesh-bundle")
        self.start = card.header("A")
        self.slot = card.read(card.slot_offset("A"), self._at("H") + int(self.start["S_HCNT"], 16) * SECTOR)
        self.keys = [run(self.tool, "keygen", self.folder / f"key{n}", *(["--test", n] if test_keys else [])).strip() for n in (1, 2, 3)]

    def toml(self, name):
        """The configuration of a node that takes bundles which two of the keys sign."""
        return f'hostname = "{name}"\nupdate.keys = {self.keys}\n'.replace("'", '"')

    def _at(self, letter):
        return int(self.start[f"S_{letter}OFF"], 16) * SECTOR

    def _part(self, letter, length):
        return self.slot[self._at(letter):self._at(letter) + length]

    def own(self, **fields):
        """The system, with other fields in its header."""
        return envsector.encode(dict(sorted({**self.start, **fields}.items()))) + self.slot[SECTOR:]

    def changed(self, version, files):
        """The system with other `files` in its root image: {path: bytes}, each of which is there already."""
        old, plan, new = (self.folder / f"{version}.{end}" for end in ("old", "plan", "new"))
        old.write_bytes(self.root())
        plan.unlink(missing_ok=True)
        run("unsquashfs", "-quiet", "-no-progress", "-pf", plan, old)
        # A list of files, one a line, then their data; what is replaced comes out of a file of this host.
        head, mark, data = plan.read_bytes().partition(b"#\n# START OF DATA - DO NOT MODIFY\n#\n")
        lines = head.splitlines()
        for number, (path, content) in enumerate(files.items()):
            source = self.folder / f"{version}.file{number}"
            source.write_bytes(content)
            at = next(i for i, line in enumerate(lines) if line.split(b" ")[:2] == [path.encode(), b"R"])
            name, _, time, mode, uid, gid = lines[at].split(b" ")[:6]
            lines[at] = b" ".join([name, b"F", time, mode, uid, gid, b"cat", str(source).encode()])
        plan.write_bytes(b"\n".join(lines) + b"\n" + mark + data)
        new.unlink(missing_ok=True)
        run("mksquashfs", "-", new, "-pf", plan, "-comp", "zstd", "-Xcompression-level", "8", "-no-xattrs", "-noappend", "-quiet", "-no-progress")
        loaded = (self._part(letter, int(self.start[f"S_{letter}LEN"], 16)) for letter in "IK")
        result = slot.build(version, *loaded, new.read_bytes())[0]
        for path in (old, plan, new):
            path.unlink()
        return result

    def grown(self, version, more):
        """The system with these bytes behind its root image's file system."""
        loaded = (self._part(letter, int(self.start[f"S_{letter}LEN"], 16)) for letter in "IK")
        return slot.build(version, *loaded, self.root() + more)[0]

    def root(self):
        """The root image."""
        return self._part("R", int(self.start["S_RCNT"], 16) * SECTOR)

    def inittab(self, first):
        """The files of a system whose init runs the shell command `first` before anything else."""
        return {"etc/inittab": f"::sysinit:{first}\n".encode() + (ROOT / "overlays/rootfs/etc/inittab").read_bytes()}

    def bundle(self, name, data, *, release, keys=(1, 2), board=BOARD, change=None):
        """A bundle of the slot `data`; its path. `change` gets its bytes before it is signed."""
        path = self.folder / f"{name}.bundle"
        (self.folder / f"{name}.slot").write_bytes(data)
        run(self.tool, "make", self.folder / f"{name}.slot", "-o", path, "--board", board, "--release", release, "--floor", release)
        if change:
            path.write_bytes(change(path.read_bytes()))
        if keys:
            run(self.tool, "sign", path, "--key", *(self.folder / f"key{n}" for n in keys))
        return path


def oversize():
    """A system that is larger than a slot: 70 MB of nothing, which pack well."""
    return tiny(root=bytes(70 << 20))


def bomb(bundle):
    """The unsigned bundle with a first chunk that unpacks to 64 MB."""
    manifest_size, count = struct.unpack_from("<IH", bundle, 8)
    manifest = bytearray(bundle[PREFIX:PREFIX + manifest_size])
    at = PREFIX + manifest_size + SIGNATURE * count
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(64 << 20)) + packer.flush()
    size, stored = struct.unpack_from("<II", bundle, at + 32)
    # A chunk is never longer in the bundle than unpacked: what does not fit is cut off, and unpacks to enough.
    packed = packed[:size - 1]
    # The table's end is where its entries' chunks make up the rest of the file.
    total, end = 0, at
    while end + total != len(bundle):
        total += struct.unpack_from("<I", bundle, end + 36)[0]
        end += ENTRY
    table = bytearray(bundle[at:end])
    struct.pack_into("<I", table, 36, len(packed))
    manifest[TABLE_HASH:TABLE_HASH + 32] = hashlib.sha256(table).digest()
    return bundle[:PREFIX] + bytes(manifest) + bundle[PREFIX + manifest_size:at] + bytes(table) + packed + bundle[end + stored:]
