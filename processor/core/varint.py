"""Numbers of variable length, as record format 2 writes them."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number as record format 2 writes it: zig-zag, seven bits to the byte."""
    left = number << 1 if number >= 0 else ~(number << 1)
    written = bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    written.append(left)
    return bytes(written)
