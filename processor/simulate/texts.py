"""Random texts, identifiers and weighted choices, all from one seeded generator."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

_POOL_CHARS: Final = 4_000_000
"""The pieces are drawn from a pool of at most this many characters."""

_WORDS: Final = (
    "city",
    "Paris",
    "amount",
    "42",
    "limit",
    "null",
    "order",
    "unit",
    "true",
    "été",
    "naïve",
    "日本",
    "Ω",
    "🚆",
)
# Characters that break careless readers: quotes, backslashes, control characters, line ends that SSE and JSON ignore.
_SPICE: Final = (
    '"',
    "\\",
    '": "',
    "\\n",
    "\n",
    "\t",
    "\r\n",
    "\x00",
    "\x1f",
    "\x7f",
    "\x85",
    "\u2028",
    "</",
    "data: ",
    "[DONE]",
)


class Piece(NamedTuple):
    """A piece of text, and the same as the inside of a JSON string."""

    text: str
    escaped: str


class Texts:
    """Pieces of mean size `mean_chars`, none of them empty. A piece never cuts a character in two."""

    def __init__(self, rng: Random, mean_chars: int) -> None:
        words: list[str] = []
        size = 0
        while size < 2 * mean_chars + 512:
            words.append(rng.choice(_SPICE) if rng.random() < 0.25 else rng.choice(_WORDS) + " ")
            size += len(words[-1])
        source = "".join(words)
        count = max(8, min(1024, _POOL_CHARS // mean_chars))
        self._pool = [self._cut(rng, source, mean_chars) for _ in range(count)]
        self._rng = rng

    @staticmethod
    def _cut(rng: Random, source: str, mean_chars: int) -> Piece:
        start = rng.randrange(256)
        text = source[start : start + rng.randint(1, max(1, 2 * mean_chars - 1))]
        # Services differ in whether they escape what is not ASCII: both must read the same.
        return Piece(text, json.dumps(text, ensure_ascii=rng.random() < 0.5)[1:-1])

    def piece(self) -> Piece:
        """Draw one."""
        return self._pool[int(self._rng.random() * len(self._pool))]

    def pieces(self, count: int) -> list[Piece]:
        """Draw `count`."""
        pool, n, random = self._pool, len(self._pool), self._rng.random
        return [pool[int(random() * n)] for _ in range(count)]

    def long(self, chars: int) -> str:
        """A text of about `chars` characters."""
        parts: list[str] = []
        while chars > 0:
            parts.append(self.piece().text)
            chars -= len(parts[-1])
        return "".join(parts)


class Mix:
    """A weighted choice among names, always in the order of `known`."""

    def __init__(self, known: Sequence[str], weights: Mapping[str, float]) -> None:
        self._names = [name for name in known if weights.get(name, 0) > 0]
        self._bounds = list(accumulate(weights[name] for name in self._names))
        self._total = self._bounds[-1] if self._bounds else 0.0

    def __bool__(self) -> bool:
        return bool(self._names)

    def pick(self, rng: Random) -> str:
        """Draw one name."""
        return self._names[min(bisect(self._bounds, rng.random() * self._total), len(self._names) - 1)]


def new_id(rng: Random, prefix: str) -> str:
    """An identifier of 24 hexadecimal digits behind a prefix."""
    return f"{prefix}{rng.getrandbits(96):024x}"
