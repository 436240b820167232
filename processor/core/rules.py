"""Rules: the settings that decide outcomes. Two replays agree only if these are equal, so they have a digest."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

MAX_DIGITS: Final = 4_300
"""Of an integer that is kept; a longer one is refused as no JSON. The program sets the interpreter to this limit."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The `[steps]` settings, and the few others, that change what a log means. Times in whole seconds."""

    grace_s: int = 60
    max_age_s: int = 86_400
    ended_retention_s: int = 60
    ended_retention_records: int = 1_000_000
    max_step_bytes: int = 3 << 19
    max_open_steps: int = 100_000
    max_record_bytes: int = 1_000_000
    unknown_events: str = "ignore"
    object_type: str = ""
    schema_frames: bool = False
    cloudevents_source: str = ""

    def digest(self) -> str:
        """Sixteen hexadecimal digits that name these rules. A rule that came later counts only where it is used."""
        told = msgspec.structs.asdict(self)
        if not self.schema_frames:
            del told["schema_frames"]
        if not self.cloudevents_source:
            del told["cloudevents_source"]
        return sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:16]
