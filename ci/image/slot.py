"""One slot: header sector, initramfs, gzip kernel, root image, dm-verity tree. Offsets and counts in the
header are sectors from the slot's start, lengths are bytes, all hexadecimal as U-Boot reads them."""

import gzip
import io
import zlib

import envsector
import verity

SECTOR = 512
# The kernel and the root image begin on a multiple of this, so that they rarely move between versions.
ALIGN = 1 << 16
# Fixed, so that the same tree has the same root hash; they need not be secret.
SALT = bytes.fromhex("7032706d657368" + "2d" + "726f6f742d696d616765" + "00" * 14)
TREE_UUID = "7032706d-6573-6800-8000-726f6f740001"


def compress(data):
    """gzip without a name and a time: the same bytes for the same input."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=9, mtime=0) as packer:
        packer.write(data)
    return out.getvalue()


def _up(value, step):
    return -(-value // step) * step


def build(version, initramfs, kernel, root_image, release=0):
    """(slot bytes, header pairs, parts) of a slot. `kernel` is already compressed. `release` grows from one to the next."""
    root_image = root_image.ljust(_up(len(root_image), verity.BLOCK), b"\0")
    root_hash, tree = verity.build(root_image, SALT, TREE_UUID)
    at_initramfs = verity.BLOCK
    at_kernel = _up(at_initramfs + len(initramfs), ALIGN)
    at_root = _up(at_kernel + len(kernel), ALIGN)
    at_tree = at_root + len(root_image)
    pairs = {
        "S_VER": version,
        **_part("I", at_initramfs, initramfs), **_part("K", at_kernel, kernel),
        "S_ROFF": f"{at_root // SECTOR:x}", "S_RCNT": f"{len(root_image) // SECTOR:x}",
        "S_HOFF": f"{at_tree // SECTOR:x}", "S_HCNT": f"{len(tree) // SECTOR:x}",
        "S_ROOT": root_hash.hex(), "S_SALT": SALT.hex(),
    }
    if release:
        pairs["S_REL"] = f"{release:x}"
    slot = bytearray(at_tree + len(tree))
    for offset, data in ((0, envsector.encode(pairs)), (at_initramfs, initramfs), (at_kernel, kernel),
                         (at_root, root_image), (at_tree, tree)):
        slot[offset:offset + len(data)] = data
    parts = {"header": SECTOR, "initramfs": len(initramfs), "kernel": len(kernel), "root": len(root_image),
             "verity": len(tree)}
    return bytes(slot), pairs, parts


def _part(letter, offset, data):
    """The header's four fields of a part whose CRC the boot script checks."""
    return {f"S_{letter}OFF": f"{offset // SECTOR:x}", f"S_{letter}CNT": f"{_up(len(data), SECTOR) // SECTOR:x}",
            f"S_{letter}LEN": f"{len(data):x}", f"S_{letter}CRC": f"{zlib.crc32(data):08x}"}
