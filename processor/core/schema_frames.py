"""Schema registry frames: the few bytes that serializers put before a JSON value, and what they say."""

from __future__ import annotations

from typing import NamedTuple

_BEGIN = (0x7B, 0x5B)
"""`{` and `[`: what a JSON value of ours begins with."""


class SchemaFrame(NamedTuple):
    """A frame: how many bytes it takes, and in words whose it is and which schema it names."""

    size: int
    shown: str


def frame_of(value: bytes) -> SchemaFrame | None:
    """The frame that a value begins with; None where there is none. Neither JSON nor SSE text begins with 0, 1 or 3.

    Confluent's serializers write byte 0 and four bytes of id (Apicurio's: eight), or byte 1 and a UUID; the AWS Glue
    Schema Registry's byte 3, a byte for its compression, and a UUID.
    """
    if len(value) < 6 or value[0] not in (0, 1, 3):
        return None
    if value[0] == 0:
        size = 9 if value[5] not in _BEGIN and len(value) > 9 and value[9] in _BEGIN else 5
        return SchemaFrame(size, f"a Schema Registry frame (byte 0, schema id {int.from_bytes(value[1:size], 'big')})")
    if value[0] == 1 and len(value) > 17:
        return SchemaFrame(17, f"a Schema Registry frame (byte 1, schema {_uuid(value[1:17])})")
    if value[0] == 3 and len(value) > 18 and value[1] in (0, 5):
        which = f"{'compressed, ' if value[1] else ''}schema version {_uuid(value[2:18])}"
        return SchemaFrame(18, f"a frame of the AWS Glue Schema Registry ({which})")
    return None


def _uuid(content: bytes) -> str:
    text = content.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
