"""Links to the traces of producers, by the W3C `traceparent` header of their records."""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.trace import Link, SpanContext, TraceFlags

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def link_to(traceparent: str) -> Link | None:
    """A link to the span that the header names; None where the header is not as W3C says."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    named = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return Link(named) if named.is_valid else None
