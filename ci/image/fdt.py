"""Reading a flattened device tree: the nodes with their properties."""

import struct

BEGIN, END, PROP, NOP, FINISH = 1, 2, 3, 4, 9


def parse(blob):
    """{path: {property: bytes}} of a .dtb file."""
    magic, _, at, strings = struct.unpack_from(">IIII", blob)
    if magic != 0xD00DFEED:
        raise ValueError("not a flattened device tree")
    nodes, path = {}, []
    while True:
        token, = struct.unpack_from(">I", blob, at)
        at += 4
        if token == BEGIN:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            nodes["/".join(path) or "/"] = {}
            at = end + 4 & ~3
        elif token == END:
            path.pop()
        elif token == PROP:
            length, name = struct.unpack_from(">II", blob, at)
            key = blob[strings + name:blob.index(b"\0", strings + name)].decode()
            nodes["/".join(path) or "/"][key] = blob[at + 8:at + 8 + length]
            at += 8 + length + 3 & ~3
        elif token == FINISH:
            return nodes
        elif token != NOP:
            raise ValueError(f"unknown token {token} in the device tree")


def strings(value):
    """The texts of a string-list property."""
    return value.rstrip(b"\0").decode().split("\0") if value else []


def enabled(nodes):
    """The nodes that the kernel looks at: status absent or okay, and so are their parents."""
    off = {path for path, props in nodes.items() if strings(props.get("status", b"okay\0")) not in (["okay"], ["ok"])}
    return {path: props for path, props in nodes.items()
            if not any(path == p or path.startswith(p + "/") for p in off)}
