"""Values that are one delta alone, under no event's name or under that of a server-sent event (E2, E5).

As those of the usual envelope they differ from delta to delta in the step's id and the text, so that a template of the
whole value can be learned from one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from processor.core.events import decode
from processor.core.run_steps.exact_reader import DataReader, ParsedDelta
from processor.core.wire_types import Decoded, ExactData

_BARE: Final = b'{"id":'
"""What a delta begins with that comes under no name."""
_LINE_ENDS: Final = b"\r\n"


def is_alone(value: bytes) -> bool:
    """Whether a value holds one event, in which nothing but the data would differ from one delta to the next.

    Of a server-sent event its name and one line of data: an `id:` would make each value a template of its own.
    """
    if value.startswith(_BARE):
        return True
    if not value.startswith(b"event:") and not value.startswith(b"data:"):
        return False
    begin = value.find(b"{")
    return begin > 0 and value.count(b"\n", 0, begin) <= 1 and value.rstrip(_LINE_ENDS).endswith(b"}")


def read_alone(value: bytes) -> ExactData:
    """The delta in such a value, as `decode` reads it.

    Raises:
        msgspec.ValidationError: it holds anything else.
    """
    decoded = decode(value, exact=DataReader())
    if type(decoded) is Decoded and len(decoded.events) == 1:
        event = decoded.events[0]
        if isinstance(event, ParsedDelta):
            return event.delta
    raise msgspec.ValidationError("no delta of the exact shape alone")
