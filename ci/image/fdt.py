"""Reading a flattened device tree: the nodes with their properties."""

import re
import struct

BEGIN, END, PROP, NOP, FINISH = 1, 2, 3, 4, 9


def _walk(blob):
    """(path of the node, property or None at its begin, offset and length of the value) in file order."""
    magic, _, at, strings_at = struct.unpack_from(">IIII", blob)
    if magic != 0xD00DFEED:
        raise ValueError("not a flattened device tree")
    path = []
    while True:
        token, = struct.unpack_from(">I", blob, at)
        at += 4
        if token == BEGIN:
            end = blob.index(b"\0", at)
            path.append(bytes(blob[at:end]).decode())
            yield "/".join(path) or "/", None, 0, 0
            at = end + 4 & ~3
        elif token == END:
            path.pop()
        elif token == PROP:
            length, name = struct.unpack_from(">II", blob, at)
            key = bytes(blob[strings_at + name:blob.index(b"\0", strings_at + name)]).decode()
            yield "/".join(path) or "/", key, at + 8, length
            at += 8 + length + 3 & ~3
        elif token == FINISH:
            return
        elif token != NOP:
            raise ValueError(f"unknown token {token} in the device tree")


def parse(blob):
    """{path: {property: bytes}} of a .dtb file."""
    nodes = {}
    for path, key, at, length in _walk(blob):
        node = nodes.setdefault(path, {})
        if key is not None:
            node[key] = bytes(blob[at:at + length])
    return nodes


def hide(blob, pattern):
    """The tree with the nodes whose path matches `pattern` made unknown to every driver (the length stays)."""
    out = bytearray(blob)
    for path, key, at, length in _walk(blob):
        if key == "compatible" and re.search(pattern, path):
            out[at:at + length] = b"x" * (length - 1) + b"\0"
    return bytes(out)


def strings(value):
    """The texts of a string-list property."""
    return value.rstrip(b"\0").decode().split("\0") if value else []


def enabled(nodes):
    """The nodes that the kernel looks at: status absent or okay, and so are their parents."""
    off = {path for path, props in nodes.items() if strings(props.get("status", b"okay\0")) not in (["okay"], ["ok"])}
    return {path: props for path, props in nodes.items()
            if not any(path == p or path.startswith(p + "/") for p in off)}
