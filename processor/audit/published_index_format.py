"""The description of a published index: a module of its own, as the index may be compiled (docs/decisions/0006)."""

from __future__ import annotations

from typing import Final

import msgspec


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """Rows that follow each other and are of one output partition, their offsets ascending: `first`, ..., `last`."""

    topic: str
    partition: int
    first: int
    last: int
    row: int
    rows: int


class About(msgspec.Struct, frozen=True):
    topics: list[str]
    stretches: list[Stretch]
    marks: list[tuple[int, int]]


read_about: Final = msgspec.msgpack.Decoder(About).decode
