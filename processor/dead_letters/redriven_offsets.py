"""Redriven offsets of one dead-letter partition, as the metadata of its committed offset.

A redrive takes some letters and leaves others, so one offset cannot say which were redriven. Below the committed offset
all of them were, or are gone; above it the metadata holds the ranges that were. It is committed in the transaction that
writes the records to the source, so it can never disagree with them.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

from processor.core.offset_metadata import LogIdentity
from processor.errors import CorruptLog

MOST_METADATA_BYTES: Final = 4000
"""Below offset.metadata.max.bytes of the broker, 4096 by default."""
_VERSION: Final = 1
_MOST_UNPACKED: Final = 1 << 20


class RedrivenOffsets:
    """The offsets that were redriven, as ranges in order: [first, end).

    What lies between two records (the markers of transactions) belongs to the second, so that ranges join where no
    record was left out in between.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []
        for first, end in ranges:
            self._firsts.append(first)
            self._ends.append(end)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedrivenOffsets) and self.ranges() == other.ranges()

    __hash__ = None  # type: ignore[assignment]

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self._firsts, self._ends, strict=True))

    def copy(self) -> RedrivenOffsets:
        return RedrivenOffsets(self.ranges())

    def add(self, offset: int, since: int) -> None:
        """Note an offset as redriven, with those from `since` on, between which and it there is no other record."""
        low, high = since, offset + 1
        at, behind = bisect_left(self._ends, low), bisect_right(self._firsts, high)
        if at < behind:
            low, high = min(low, self._firsts[at]), max(high, self._ends[behind - 1])
        self._firsts[at:behind] = [low]
        self._ends[at:behind] = [high]

    def committed_offset(self, begin: int) -> int:
        """The offset to commit: all below it is redriven, or lies below `begin`, where the log begins by now."""
        for first, end in self.ranges():
            if first <= begin < end:
                return end
        return begin

    def forget_below(self, offset: int) -> None:
        """Leave out the ranges that the committed offset covers."""
        kept = [(max(first, offset), end) for first, end in self.ranges() if end > offset]
        self._firsts = [first for first, _ in kept]
        self._ends = [end for _, end in kept]

    def encode(self, offset: int, log: LogIdentity) -> str:
        """The metadata beside the committed `offset`. ASCII; its length is what the broker limits."""
        gaps: list[int] = []
        at = offset
        for first, end in self.ranges():
            gaps += (first - at, end - first)
            at = end
        packed = base64.b85encode(zlib.compress(",".join(map(str, gaps)).encode(), 9)).decode() if gaps else ""
        return json.dumps({"v": _VERSION, "k": log.cluster, "i": log.topic_id, "r": packed}, separators=(",", ":"))

    @classmethod
    def decode(cls, where: str, offset: int, metadata: str) -> tuple[LogIdentity, RedrivenOffsets]:
        """Parse the metadata: the log that it belongs to, and the ranges above `offset`.

        Raises:
            CorruptLog: it is not what a redrive writes: which letters were redriven is not known.
        """
        try:
            told = json.loads(metadata)
            if told["v"] != _VERSION:
                raise ValueError("another version")
            log = LogIdentity(str(told["k"]), str(told["i"]))
            text = b""
            if told["r"]:
                unpacking = zlib.decompressobj()
                text = unpacking.decompress(base64.b85decode(told["r"]), _MOST_UNPACKED)
                if not unpacking.eof:
                    raise ValueError("cut off")
            gaps = [int(number) for number in text.split(b",")] if text else []
            if len(gaps) % 2 or any(gap < 0 for gap in gaps):
                raise ValueError("no ranges")
        except (ValueError, KeyError, TypeError, zlib.error, binascii.Error) as error:
            raise CorruptLog(
                f"{where}: the metadata of the committed offset {offset} is not that of a redrive ({error})",
                hint="another program has set this group's offsets, or a newer version; which letters were redriven is "
                "in the header runstep-redriven of the source's records",
            ) from None
        ranges: list[tuple[int, int]] = []
        at = offset
        for between, length in zip(gaps[::2], gaps[1::2], strict=True):
            ranges.append((at + between, at + between + length))
            at += between + length
        return log, cls(ranges)
