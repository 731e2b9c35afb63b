"""The card: partition table, boot state, FAT partition, slots, and the image's block map."""

import configparser
import hashlib
import os
import struct
import subprocess
from pathlib import Path

import envsector

SECTOR = 512
MIB = 1 << 20
BLOCK = 4096


class CardError(Exception):
    """The card can't be laid out; the text says why."""


class Layout:
    """The numbers of board/<name>/layout.ini, in bytes."""

    def __init__(self, path):
        ini = configparser.ConfigParser(inline_comment_prefixes=("#",))
        with open(path, encoding="utf-8") as file:
            ini.read_file(file)
        self.signature = int(ini["disk"]["signature"], 0)
        self.state = [int(word, 0) * SECTOR for word in ini["disk"]["state"].split()]
        self.fat_start = ini.getint("fat", "start_mib") * MIB
        self.fat_size = ini.getint("fat", "size_mib") * MIB
        self.fat_label = ini["fat"]["label"]
        self.fat_id = ini["fat"]["volume_id"]
        self.slot_size = ini.getint("slots", "size_mib") * MIB
        self.slots = [self.fat_start + self.fat_size, self.fat_start + self.fat_size + self.slot_size]
        self.data_start = self.slots[1] + self.slot_size
        self.data_size = ini.getint("data", "size_mib") * MIB
        self.size = self.data_start + self.data_size
        self.root_format = ini["root"]["format"]
        if max(self.state) + SECTOR > self.fat_start:
            raise CardError(f"{path}: the boot state overlaps the FAT partition")


def mbr(layout):
    """The partition table: FAT (bootable), two raw slots, data. CHS fields say 'use LBA'."""
    entries = [(0x80, 0x0C, layout.fat_start, layout.fat_size), (0, 0xDA, layout.slots[0], layout.slot_size),
               (0, 0xDA, layout.slots[1], layout.slot_size), (0, 0x83, layout.data_start, layout.data_size)]
    table = b"".join(struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, size // SECTOR)
                     for flag, kind, start, size in entries)
    return bytes(440) + struct.pack("<I", layout.signature) + bytes(2) + table + b"\x55\xaa"


def _run(command, epoch):
    env = dict(os.environ, SOURCE_DATE_EPOCH=str(epoch), MTOOLS_SKIP_CHECK="1", TZ="UTC", LC_ALL="C")
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env)
    if result.returncode:
        raise CardError(f"{command[0]} failed: {result.stdout.strip()}")


def fat(layout, files, out, epoch):
    """Writes the FAT partition with `files` ({name: bytes}) to the file `out`: FAT32, 512-byte clusters."""
    out = Path(out)
    out.write_bytes(b"")
    with open(out, "r+b") as file:
        file.truncate(layout.fat_size)
    _run(["mkfs.fat", "--invariant", "-F", "32", "-s", "1", "-n", layout.fat_label, "-i", layout.fat_id, str(out)], epoch)
    folder = out.with_suffix(".files")
    folder.mkdir(exist_ok=True)
    for name in sorted(files):
        path = folder / name
        path.write_bytes(files[name])
        os.utime(path, (epoch, epoch))
        _run(["mcopy", "-m", "-i", str(out), str(path), f"::{name}"], epoch)


def image(layout, out, fat_file, slot_bytes):
    """Writes the whole card to `out`. Slot B is empty: the update service fills it. Returns the ranges that
    a copy of the image must write (offset, length), zero or not."""
    if len(slot_bytes) > layout.slot_size:
        raise CardError(f"the slot needs {len(slot_bytes)} bytes of {layout.slot_size}")
    with open(out, "wb") as file:
        file.truncate(layout.size)
        file.write(mbr(layout))
        for copy, offset in enumerate(layout.state):
            file.seek(offset)
            # Slot B has no tries: there is nothing in it to try.
            file.write(envsector.boot_state(copy + 1, b_left=0))
        file.seek(layout.fat_start)
        data = Path(fat_file).read_bytes()
        for offset in range(0, len(data), BLOCK):
            block = data[offset:offset + BLOCK]
            if block.count(0) != len(block):
                file.seek(layout.fat_start + offset)
                file.write(block)
        file.seek(layout.slots[0])
        file.write(slot_bytes)
    # What was on the card before must not look like a slot, a file system or a boot state.
    return [(0, BLOCK), *((offset, BLOCK) for offset in layout.state), (layout.slots[1], MIB),
            (layout.data_start, layout.data_size)]


def block_map(path, must_write):
    """The image's .bmap (bmaptool format 2.0): which 4096-byte blocks hold something, with checksums."""
    data = memoryview(Path(path).read_bytes())
    count = len(data) // BLOCK
    forced = {b for offset, length in must_write for b in range(offset // BLOCK, -(-(offset + length) // BLOCK))}
    zero = bytes(BLOCK)
    ranges, first = [], None
    for block in range(count + 1):
        used = block < count and (block in forced or data[block * BLOCK:(block + 1) * BLOCK] != zero)
        if used and first is None:
            first = block
        elif not used and first is not None:
            ranges.append((first, block - 1))
            first = None
    lines = []
    for low, high in ranges:
        digest = hashlib.sha256(data[low * BLOCK:(high + 1) * BLOCK]).hexdigest()
        span = f"{low}-{high}" if low != high else f"{low}"
        lines.append(f'        <Range chksum="{digest}">{span}</Range>')
    mapped = sum(high - low + 1 for low, high in ranges)
    blank = "0" * 64
    text = "\n".join([
        '<?xml version="1.0" ?>', '<bmap version="2.0">',
        f"    <ImageSize>{len(data)}</ImageSize>", f"    <BlockSize>{BLOCK}</BlockSize>",
        f"    <BlocksCount>{count}</BlocksCount>", f"    <MappedBlocksCount>{mapped}</MappedBlocksCount>",
        "    <ChecksumType>sha256</ChecksumType>", f"    <BmapFileChecksum>{blank}</BmapFileChecksum>",
        "    <BlockMap>", *lines, "    </BlockMap>", "</bmap>", ""])
    # The file's checksum is taken with zeros in its own place.
    return text.replace(blank, hashlib.sha256(text.encode()).hexdigest())
