"""Assembles the messages of rfc7182.txt from RFC 7182 section 12 alone, without the router's code."""

import hashlib
import hmac
import socket

KEY = b"correct horse battery staple"
KEY_ID = hmac.new(KEY, b"RFC 7182 key-id", hashlib.sha256).digest()[:4]
HEAD = bytes([3, 3, 4]) + KEY_ID  # SHA-256, HMAC, key-id-length, key-id


def octets(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def message(kind, flags, header, tlvs, blocks):
    """RFC 5444 section 5.2."""
    body = header + len(tlvs).to_bytes(2, "big") + tlvs + blocks
    return bytes([kind, flags]) + (len(body) + 4).to_bytes(2, "big") + body


def signed(kind, flags, header, tlvs, blocks, source=None):
    """`header`: originator, hops, sequence number. With `source`: type extension 2."""
    originator, hops, seq = header
    covered = HEAD + message(kind, flags, originator + bytes(len(hops)) + seq, tlvs, blocks)
    if source:
        covered = bytes([len(octets(source))]) + octets(source) + covered
    icv = HEAD + hmac.new(KEY, covered, hashlib.sha256).digest()[:16]
    tlvs += bytes([5, 0x90, 2 if source else 1, len(icv)]) + icv
    return message(kind, flags, originator + hops + seq, tlvs, blocks)


def counter(n):
    value = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([6, 0x10, len(value)]) + value


def hello():
    """Of fe80::2, originator fd00::2, that hears fe80::1: valid for 6 s, willingness 7 and 7."""
    addresses = bytes([2, 0x80, 15]) + octets("fe80::")[:15] + bytes([2, 1])
    tlvs = bytes([2, 0x50, 0, 1, 0, 3, 0x50, 1, 1, 2, 7, 0x50, 1, 2, 0xF0, 0])
    block = addresses + len(tlvs).to_bytes(2, "big") + tlvs
    said = bytes([1, 0x10, 1, 0x64, 7, 0x10, 1, 0x77]) + counter(1 << 32 | 5)
    return signed(0, 0x8F, (octets("fd00::2"), b"", b""), said, block, "fe80::2")


def tc():
    """Of fd00::2, two hops away: valid for 15 s, complete, ANSN 7, without neighbours."""
    said = bytes([1, 0x10, 1, 0x6F, 8, 0x10, 2, 0, 7]) + counter(1 << 32 | 6)
    return signed(1, 0xFF, (octets("fd00::2"), bytes([253, 2]), bytes([0, 9])), said, b"")


def example():
    """The message of RFC 7182 section 12.3: 82 octets."""
    header = (octets("10.0.0.1"), bytes([5, 3]), bytes([0x12, 0x34]))
    first = bytes([2, 0x30, 2, 10, 1, 10, 2, 16, 0, 0])
    second = bytes([3, 0x80, 2, 192, 168, 0, 1, 0, 2, 0, 3, 0, 9])
    second += bytes([201, 0x10, 2, 9, 9, 202, 0x20, 1, 2])
    return signed(1, 0xF3, header, bytes([200, 0x10, 6, 1, 2, 3, 4, 5, 6]), first + second)


def hello4():
    """Of 10.0.0.1, without addresses."""
    said = bytes([1, 0x10, 1, 0x64]) + counter(77)
    return signed(0, 0x83, (octets("10.0.0.1"), b"", b""), said, b"", "10.0.0.1")


print(f"# Made by rfc7182.py. Key: {KEY.decode()}; key-id: {KEY_ID.hex()}")
for name, made in [("hello", hello()), ("tc", tc()), ("example", example()), ("hello4", hello4())]:
    print(made.hex(), name)
