"""Compression codecs of the records that are written: Kafka's number of each, and the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiokafka import codec

CODECS: Final[Mapping[str | None, tuple[int, Callable[[bytes], bytes] | None]]] = MappingProxyType(
    {
        None: (0, None),
        "gzip": (1, codec.gzip_encode),
        "snappy": (2, codec.snappy_encode),
        "lz4": (3, codec.lz4_encode),
        "zstd": (4, codec.zstd_encode),
    }
)
