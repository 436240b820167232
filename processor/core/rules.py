"""Rules: the settings that decide outcomes. Two replays agree only if these are equal, so they have a digest."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

MAX_DIGITS: Final = 4_300
"""Of an integer that is kept; a longer one is refused as no JSON. The program sets the interpreter to this limit."""

_FOLDING: Final = (
    "grace_s",
    "max_age_s",
    "ended_retention_s",
    "ended_retention_records",
    "max_step_bytes",
    "max_open_steps",
    "max_record_bytes",
    "schema_frames",
)
"""The rules that decide what a fold remembers and when it ends a step, in the order of `Rules.folding`: append only."""


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

    def folding(self) -> tuple[int, ...]:
        """The rules that a silent fold needs, as numbers: offset metadata has room for them, and not for all rules."""
        return tuple(int(getattr(self, name)) for name in _FOLDING)

    def with_folding(self, numbers: tuple[int, ...]) -> Rules:
        """These rules with what `folding` gave of others; what those did not name stays."""
        named: dict[str, int] = dict(zip(_FOLDING, numbers, strict=False))
        if "schema_frames" in named:
            named["schema_frames"] = bool(named["schema_frames"])
        return msgspec.structs.replace(self, **named)
