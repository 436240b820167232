"""Compressed groups of ended steps: how a worker has the core keep them (`core.ended_groups`)."""

from __future__ import annotations

from typing import Final

import cramjam

from processor.core.ended_groups import Grouping

_ROOM: Final = memoryview(bytearray(256 << 10))
"""Written to again and again: the library zeroes fresh memory for each block."""


def compress(content: bytes) -> bytes:
    """The bytes as one block of LZ4, their size in front."""
    most = cramjam.lz4.compress_block_bound(content)
    room = _ROOM if most <= len(_ROOM) else memoryview(bytearray(most))
    size = cramjam.lz4.compress_block_into(content, room)
    return bytes(room[:size])


def decompress(block: bytes) -> bytes:
    """The bytes that `compress` was given."""
    return bytes(cramjam.lz4.decompress_block(block))


COMPRESSED: Final = Grouping(most_bytes=128 << 10, compress=compress, decompress=decompress)
"""LZ4 finds what is alike up to 64 KiB back: a group of as much compresses less."""
