"""What the metadata of a committed offset says: from where, and as whom, a partition goes on.

It travels in the group's own offset commit, so it can never disagree with the offset beside it.
"""

from __future__ import annotations

import msgspec


class ResumePoint(msgspec.Struct, frozen=True, gc=False):
    """Where a new owner starts to read, the stream time there (milliseconds), and who may have a transaction open."""

    restore_from: int = msgspec.field(name="r")
    stream_time: int = msgspec.field(name="t", default=-1)
    writer: str = msgspec.field(name="w", default="")
    fold_version: int = msgspec.field(name="v", default=1)

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, metadata: str) -> ResumePoint | None:
        """None where the metadata is not ours: someone set the offset by hand."""
        try:
            return msgspec.json.decode(metadata, type=cls)
        except msgspec.MsgspecError:
            return None
