"""The description of a published index: a module of its own, as the index may be compiled (docs/decisions/0006)."""

from __future__ import annotations

from typing import Final

import msgspec


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive rows of one output partition with ascending offsets, `first` to `last`."""

    topic: str
    partition: int
    first: int
    last: int
    row: int
    rows: int


class About(msgspec.Struct, frozen=True):
    topics: list[str]
    segments: list[Segment]
    marks: list[tuple[int, int]]
    regimes: list[tuple[bytes | None, bytes | None]]


read_about: Final = msgspec.msgpack.Decoder(About).decode
