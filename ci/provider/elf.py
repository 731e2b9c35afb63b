"""Just enough of ELF to know which shared libraries a program needs."""

from __future__ import annotations

import pathlib
import struct


def needed(path: pathlib.Path) -> tuple[list[str], str | None] | None:
    """(sonames of DT_NEEDED, program interpreter) of an ELF64 little-endian file; None if it is something else."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    offset, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads, dynamic, interpreter = [], None, None
    for index in range(count):
        kind, _, start, address, _, length = struct.unpack_from("<IIQQQQ", data, offset + index * size)
        if kind == 1:
            loads.append((address, start, length))
        elif kind == 2:
            dynamic = (start, length)
        elif kind == 3:
            interpreter = data[start:start + length].rstrip(b"\0").decode()
    if dynamic is None:
        return [], interpreter
    names, strings = [], 0
    for place in range(dynamic[0], dynamic[0] + dynamic[1], 16):
        tag, value = struct.unpack_from("<qQ", data, place)
        if tag == 0:
            break
        if tag == 1:
            names.append(value)
        elif tag == 5:
            strings = next((start + value - address for address, start, length in loads if address <= value < address + length), 0)
    return [data[strings + name:data.index(b"\0", strings + name)].decode() for name in names], interpreter
