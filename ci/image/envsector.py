"""U-Boot's environment format: CRC-32 (little-endian) of the rest, then key=value strings, each ended by a
zero byte, the list ended by another. The boot state and the slot header are one 512-byte sector of it,
uboot.env is 16 KiB of it. The boot script and the update service read the same bytes."""

import struct
import zlib

SECTOR = 512


def encode(pairs, size=SECTOR):
    """The environment of `pairs` (a mapping of str to str), padded with zero bytes to `size`."""
    body = b"".join(f"{key}={value}".encode("ascii") + b"\0" for key, value in pairs.items()) + b"\0"
    if len(body) > size - 4:
        raise ValueError(f"environment of {len(body)} bytes does not fit into {size - 4}")
    body = body.ljust(size - 4, b"\0")
    return struct.pack("<I", zlib.crc32(body)) + body


def decode(data):
    """The pairs of an environment, or None when its checksum is wrong."""
    crc, = struct.unpack_from("<I", data)
    body = data[4:]
    if zlib.crc32(body) != crc:
        return None
    pairs = {}
    for item in body.split(b"\0"):
        if not item:
            break
        key, _, value = item.decode("ascii", "replace").partition("=")
        pairs[key] = value
    return pairs


def boot_state(seq, order="A B", a_left=3, b_left=3):
    """One boot-state sector. Numbers are hexadecimal without a prefix, as U-Boot reads them."""
    return encode({"BS_SEQ": f"{seq:x}", "BOOT_ORDER": order, "BOOT_A_LEFT": f"{a_left:x}", "BOOT_B_LEFT": f"{b_left:x}"})
