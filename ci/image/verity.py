"""The dm-verity hash tree of an image, in the format of `veritysetup format` (superblock version 1, SHA-256,
4096-byte blocks). Written here because it is forty lines, deterministic and needs no device-mapper."""

import hashlib
import struct
import uuid

BLOCK = 4096
DIGEST = 32


def _level(data, salt):
    """The hash blocks over `data`: one salted digest per block, packed, padded to whole blocks."""
    start = hashlib.sha256(salt)
    digests = bytearray()
    for offset in range(0, len(data), BLOCK):
        block = start.copy()
        block.update(data[offset:offset + BLOCK])
        digests += block.digest()
    return bytes(digests.ljust(-(-len(digests) // BLOCK) * BLOCK, b"\0"))


def build(data, salt, tree_uuid):
    """(root hash, superblock and tree) over `data`, whose length is a multiple of 4096.

    The tree lies after its superblock with the top level first, as the kernel expects it.
    """
    if not data or len(data) % BLOCK:
        raise ValueError("dm-verity needs whole 4096-byte blocks")
    if len(data) == BLOCK:
        levels = [data]  # the block is its own tree
    else:
        levels = [_level(data, salt)]
    while len(levels[-1]) > BLOCK:
        levels.append(_level(levels[-1], salt))
    root = hashlib.sha256(salt + levels[-1]).digest()
    superblock = struct.pack(
        "<8sII16s32sIIQH6x256s168x", b"verity\0\0", 1, 1, uuid.UUID(tree_uuid).bytes, b"sha256",
        BLOCK, BLOCK, len(data) // BLOCK, len(salt), salt)
    tree = b"" if len(data) == BLOCK else b"".join(reversed(levels))
    return root, superblock.ljust(BLOCK, b"\0") + tree
