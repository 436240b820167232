"""Records that one object shows, one after the other: what the fold takes in place of an object for each record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.effects import Headers, Record

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone


class ShownRecord:
    """Base of the pieces of a log that show their records. Iterating over one gives the piece itself.

    While it does so it is a `Record`; `record()` is the one that stays.
    """

    def __init__(self) -> None:
        self.offset: i64 = -1
        self.timestamp: i64 = -1
        self.value: bytes | None = None
        self.is_plain = True
        """Whether `event_id` is known without a look at each header, and so is not `SPECIAL`."""
        self.may_trace = False
        """Whether there may be trace headers among its own."""

    @property
    def key(self) -> bytes | None:
        raise NotImplementedError

    @property
    def headers(self) -> Headers:
        raise NotImplementedError

    def event_id(self) -> bytes | None:
        """The event id of the current record, as `plain_id` reads it from headers."""
        raise NotImplementedError

    def run_id(self) -> bytes | None:
        """The run that its headers name, if these are event id, run id and sequence, as `publish` writes them, and
        that is known without a look at each; else None."""
        raise NotImplementedError

    def record(self) -> Record:
        """The record that is shown at the moment, as an object that stays."""
        raise NotImplementedError
