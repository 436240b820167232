"""Offset-commit metadata: where a new owner of a partition starts to read, who wrote it, and of which log.

It travels in the group's own offset commit, so it can never disagree with the offset beside it. Tools copy it (a
mirror of the group's offsets does so verbatim) and empty it (any reset of offsets does), so it names the log that it
is of, and `processor.serve.positions` compares it with the log at hand before it is used.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

METADATA_VERSION: Final = 2
"""1: without an identity (the writer, the restore point and its stream time only). 2: with one."""

MODE_RESUME: Final = 0
MODE_REBUILD: Final = 1
MODE_ANEW: Final = 2


class LogIdentity(NamedTuple):
    """Which log: the cluster's id and the source topic's id; "" where the broker does not say (topic ids: < 2.8)."""

    cluster: str = ""
    topic_id: str = ""

    def differs(self, other: LogIdentity) -> str:
        """`cluster` or `topic` where the two name different ones; "" where they agree or one of them does not know."""
        if self.cluster and other.cluster and self.cluster != other.cluster:
            return "cluster"
        if self.topic_id and other.topic_id and self.topic_id != other.topic_id:
            return "topic"
        return ""

    def encode(self) -> str:
        """As a checkpoint carries it."""
        return f"{self.cluster} {self.topic_id}" if self.cluster or self.topic_id else ""

    @classmethod
    def decode(cls, text: str) -> LogIdentity:
        cluster, _, topic_id = text.partition(" ")
        return cls(cluster, topic_id)


class OffsetMetadata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The metadata of one committed offset.

    `restore_from`: where a new owner starts to read, `stream_time` (milliseconds) the stream time there. `writer`: who
    may have a transaction open. `cluster`, `topic_id`: the log that the offset is of. `kept`: how many keys the
    checkpoint partition holds as of this commit; -1: not known. `exact`: checkpoints and offset were committed
    together, so that the two agree to the key (exactly once). `whole`: so many partitions, from 0 on, were seen with a
    committed offset. `mode`: `MODE_REBUILD`, `MODE_ANEW` where the state at the offset has first to be built by a fold
    from the log's beginning, with the checkpoints that fit or without any. `unit` numbers the commits of one writer's
    incarnation: by it a commit is told from the one before it where neither moved the offset. `rules`: `Rules.folding`
    of the settings under which the records from `restore_from` on were folded; empty where that is not known.
    """

    restore_from: int = msgspec.field(name="r")
    stream_time: int = msgspec.field(name="t", default=-1)
    writer: str = msgspec.field(name="w", default="")
    version: int = msgspec.field(name="v", default=1)
    cluster: str = msgspec.field(name="k", default="")
    topic_id: str = msgspec.field(name="i", default="")
    kept: int = msgspec.field(name="c", default=-1)
    whole: int = msgspec.field(name="n", default=0)
    mode: int = msgspec.field(name="m", default=MODE_RESUME)
    unit: int = msgspec.field(name="u", default=0)
    exact: bool = msgspec.field(name="e", default=True)
    rules: tuple[int, ...] = msgspec.field(name="s", default=())

    @property
    def log(self) -> LogIdentity:
        return LogIdentity(self.cluster, self.topic_id)

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, metadata: str) -> OffsetMetadata | None:
        """Decode the metadata of a committed offset; None where it is not ours: someone set the offset by hand."""
        try:
            return msgspec.json.decode(metadata, type=cls)
        except msgspec.MsgspecError:
            return None
