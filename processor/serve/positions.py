"""Start position of a partition: whether the committed offset belongs to this log, and what must be rebuilt if not.

Pure functions from the broker's answers to a `Start` or a refusal. A position that cannot be of this log is refused
(exit 65) with both choices; one that lost only its metadata or its checkpoints is rebuilt by a silent fold from the
log's beginning; nothing is guessed.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from processor.core.checkpoints import read_checkpoint
from processor.core.offset_metadata import (
    METADATA_VERSION,
    MODE_ANEW,
    MODE_REBUILD,
    MODE_RESUME,
    LogIdentity,
    OffsetMetadata,
)
from processor.errors import CorruptLog, UsageError

Where = Literal["earliest", "latest", "current"] | int


class PositionRefused(CorruptLog):
    """A partition's position, or its checkpoints, cannot be of the log that they would be applied to."""

    def __init__(self, message: str, *, hint: str, partition: int, reason: str) -> None:
        super().__init__(message, hint=hint)
        self.partition, self.reason = partition, reason


def all_of(refused: Sequence[PositionRefused]) -> PositionRefused:
    """One refusal from several: the first, and a line for each of the others."""
    first = refused[0]
    message = "\n".join(error.message for error in refused)
    return PositionRefused(message, hint=first.hint, partition=first.partition, reason=first.reason)


class StartReason(enum.StrEnum):
    """Reason why a start is not the ordinary one; a value of the metric's label."""

    METADATA_MISSING = "metadata_missing"
    CHECKPOINTS_LOST = "checkpoints_lost"
    ASKED = "asked"
    SHORTENED = "shortened"


class Group(NamedTuple):
    """Committed offsets of the group for the topic, this partition and all others."""

    partitions: int
    """Number of partitions of the topic."""
    points: Mapping[int, OffsetMetadata | None]
    """By partition with a committed offset: its metadata; None where that is not ours."""

    @property
    def whole(self) -> int:
        """Number of partitions, from 0 on, that are known to have had a committed offset.

        Members claim all that they are assigned, so a group is whole soon after its first start; until then, and for
        partitions added later, a missing offset is no loss. Metadata that cannot tell (of version 1, or none) is that
        of a group long since whole.
        """
        known = 0
        for point in self.points.values():
            known = max(known, point.whole if point is not None and point.version >= 2 else self.partitions)
        return known


class SourcePartition(NamedTuple):
    """Which partition is asked about; for the messages."""

    topic: str
    checkpoints: str
    group: str
    partition: int

    def __str__(self) -> str:
        return f"topic {self.topic}: partition {self.partition}"

    def command(self, to: str) -> str:
        return f"`run-steps reset --partition {self.partition} --to {to}`"

    def choices(self) -> str:
        """The two commands to choose from, for one partition."""
        return (
            f"stop all workers, then {self.command('earliest')} publishes all of it again, --to OFFSET (or latest) "
            "goes on from there and publishes nothing before it"
        )


class Facts(NamedTuple):
    """Facts from the broker about one partition of the source."""

    log: LogIdentity
    begin: int
    end: int


class Surveyed(NamedTuple):
    """The checkpoints of one partition, judged against a log and an offset."""

    fit: dict[bytes, bytes]
    unfit: list[bytes]
    foreign: LogIdentity | None
    """Log of the first checkpoint that is another log's."""
    ahead: int
    """The largest offset that one was applied below, where that is beyond the committed offset; -1: none is.

    From there on checkpoints and offsets agree again, where those ahead are kept.
    """

    @property
    def keys(self) -> int:
        return len(self.fit) + len(self.unfit)


class Start(NamedTuple):
    """Start of a partition. With `reason` and a `mode` other than `MODE_RESUME` the state has to be rebuilt."""

    offset: int
    restore_from: int
    stream_time: int
    mode: int
    reason: StartReason | None
    checkpoints: Surveyed
    lost_of: int = -1
    """Number of committed checkpoints, if another number is there: then the log must reach back far enough."""

    @property
    def exact_from(self) -> int:
        """The offset from which on checkpoints and offsets can be one transaction's; -1: from the first."""
        return self.checkpoints.ahead if self.mode == MODE_RESUME else -1


def survey(found: Mapping[bytes, bytes], log: LogIdentity, offset: int, *, keeps_ahead: bool = False) -> Surveyed:
    """Separate the checkpoints that fit from those of another log, or of a later offset of this log.

    Args:
        keeps_ahead: those of a later offset fit as well: they were written just before that offset was to be committed.

    Raises:
        ValueError: a checkpoint is not one of ours or comes from a newer version.
    """
    fit: dict[bytes, bytes] = {}
    unfit: list[bytes] = []
    foreign, ahead = None, -1
    for key, value in found.items():
        saved = read_checkpoint(key, value)
        of = LogIdentity.decode(saved.log)
        applied_below = saved.touched_offset + 1 if saved.kind == "gone" else saved.applied_below
        if of.differs(log):
            foreign = foreign or of
            unfit.append(key)
            continue
        if applied_below > offset:
            ahead = max(ahead, applied_below)
            if not keeps_ahead:
                unfit.append(key)
                continue
        fit[key] = value
    return Surveyed(fit, unfit, foreign, ahead)


def judge(
    place: SourcePartition,
    offset: int,
    metadata: str,
    facts: Facts,
    found: Mapping[bytes, bytes],
    group: Group,
    *,
    written: Sequence[str],
    exactly_once: bool,
    start: Literal["earliest", "latest"],
    begin_at: Where | None,
) -> Start:
    """Decide where one partition starts.

    Args:
        offset, metadata: as committed; -1 where nothing is.
        found: the latest value of every key of the checkpoint partition.
        written: the outcome topics that hold, or held, records.
        start: where a group that never was begins.
        begin_at: what was asked for where no offset is committed.

    Raises:
        PositionRefused: it cannot be of this log. OffsetLost is the caller's to raise, of `offset < facts.begin`.
        ValueError: a checkpoint is not one of ours or comes from a newer version.
    """
    if offset < 0:
        return _begin(place, facts, found, group, written, start, begin_at)
    point = OffsetMetadata.decode(metadata)
    if point is not None:
        _check_identity(place, point, facts.log)
    if offset > facts.end:
        raise PositionRefused(
            f"{place}: committed at {offset}, but the log ends at {facts.end}",
            hint=f"was the topic made anew, or cut? If so {place.choices()}",
            partition=place.partition,
            reason="beyond_end",
        )
    exact = exactly_once if point is None or point.version < 2 else point.exact
    mode = MODE_REBUILD if point is None else point.mode
    if mode == MODE_ANEW:  # they are to be forgotten, readable or not
        checkpoints = Surveyed({}, list(found), None, -1)
    else:
        # What is rebuilt goes on at the offset that was asked for, whatever was published behind it.
        checkpoints = survey(found, facts.log, offset, keeps_ahead=mode == MODE_RESUME and not exact)
    if point is None or mode == MODE_RESUME:
        _check_checkpoints(place, offset, checkpoints, facts.log, exact=exact)
    if point is None:
        return Start(offset, offset, -1, MODE_REBUILD, StartReason.METADATA_MISSING, checkpoints)
    if mode != MODE_RESUME:
        return Start(offset, offset, -1, mode, StartReason.ASKED, checkpoints)
    # With at_least_once a kill may leave them one unit apart; that does not explain why all are gone.
    if point.kept >= 0 and (point.kept != checkpoints.keys if exact else point.kept and not checkpoints.keys):
        return Start(offset, offset, -1, MODE_REBUILD, StartReason.CHECKPOINTS_LOST, checkpoints, lost_of=point.kept)
    if facts.begin <= point.restore_from <= offset:
        return Start(offset, point.restore_from, point.stream_time, MODE_RESUME, None, checkpoints)
    restore_from = min(max(point.restore_from, facts.begin), offset)
    return Start(offset, restore_from, point.stream_time, MODE_RESUME, StartReason.SHORTENED, checkpoints)


def _begin(
    place: SourcePartition,
    facts: Facts,
    found: Mapping[bytes, bytes],
    group: Group,
    written: Sequence[str],
    start: str,
    begin_at: Where | None,
) -> Start:
    """Start of a partition without a committed offset, if it is new; refuse it if there are signs that it is not."""
    if begin_at is not None:
        offset = resolve(place, begin_at, facts)
        checkpoints = survey(found, facts.log, offset)
        return Start(offset, offset, -1, MODE_REBUILD, StartReason.ASKED, checkpoints)
    evidence = []
    if place.partition < group.whole:
        evidence.append(f"other partitions of group {place.group} have one")
    if found:
        evidence.append(f"topic {place.checkpoints} holds {len(found)} checkpoints of it")
    if not group.points and written:
        evidence.append(f"records were published before ({', '.join(written)})")
    if evidence:
        raise PositionRefused(
            f"{place}: no committed offset in group {place.group}, and this is no first start: {'; '.join(evidence)}",
            hint="offsets are gone when a group was stopped for longer than offsets.retention.minutes, was deleted, or "
            "its topic was made anew, another source.group_id has none (name the old one), and outcome topics may hold "
            "what was published of another source: "
            f"{place.choices()}; or once "
            f"`run-steps serve --begin-at {place.partition}=earliest` (latest, OFFSET)",
            partition=place.partition,
            reason="offset_missing",
        )
    # "latest" is for groups that never were: what a new partition holds has come since, and nothing of it was read.
    latest = start == "latest" and not group.whole
    offset = facts.end if latest else facts.begin
    return Start(offset, offset, -1, MODE_RESUME, None, Surveyed({}, [], None, -1))


def _check_identity(place: SourcePartition, point: OffsetMetadata, log: LogIdentity) -> None:
    if point.version > METADATA_VERSION:
        raise PositionRefused(
            f"{place}: the metadata of its committed offset is of version {point.version}, "
            f"this program reads up to {METADATA_VERSION}",
            hint=f"run the newer version that wrote it; or {place.choices()}",
            partition=place.partition,
            reason="version",
        )
    differs = point.log.differs(log)
    if differs == "cluster":
        raise PositionRefused(
            f"{place}: its committed offset is of another cluster ({point.cluster}; this one is {log.cluster})",
            hint="offsets do not mean the same records there: a mirror of the group's offsets was followed "
            f"(docs/second-cluster.md). Only if you know the right offset here {place.choices()}",
            partition=place.partition,
            reason="other_cluster",
        )
    if differs:
        raise PositionRefused(
            f"{place}: its committed offset is of another topic of this name (id {point.topic_id}; "
            f"this one is {log.topic_id})",
            hint=f"the topic was deleted and made anew, and the offsets were put back: {place.choices()}",
            partition=place.partition,
            reason="other_topic",
        )


def _check_checkpoints(
    place: SourcePartition, offset: int, checkpoints: Surveyed, log: LogIdentity, *, exact: bool
) -> None:
    if checkpoints.foreign is not None:
        other = checkpoints.foreign
        raise PositionRefused(
            f"topic {place.checkpoints}: partition {place.partition}: holds checkpoints of another log "
            f"(cluster {other.cluster}, topic id {other.topic_id}; "
            f"{place.topic} is {log.cluster}, {log.topic_id})",
            hint=f"{place.choices()}; each forgets the checkpoints that do not fit",
            partition=place.partition,
            reason="other_checkpoints",
        )
    if exact and checkpoints.ahead >= 0:
        raise PositionRefused(
            f"topic {place.checkpoints}: partition {place.partition}: holds checkpoints up to offset "
            f"{checkpoints.ahead}, beyond the committed offset {offset}",
            hint=f"the group's offset was set back, or they are of another log. To go on from there all the same "
            f"{place.command('current')}, which forgets the checkpoints that do not fit; else {place.choices()}",
            partition=place.partition,
            reason="checkpoints_ahead",
        )


def unreachable(place: SourcePartition, start: Start, begin: int) -> PositionRefused:
    """Refusal where checkpoints are lost and the log does not reach back far enough to rebuild the state."""
    return PositionRefused(
        f"topic {place.checkpoints}: partition {place.partition}: {start.lost_of} checkpoints were committed with "
        f"offset {start.offset} of {place.topic}, {start.checkpoints.keys} are there, and the log from {begin} on "
        "does not reach back [steps] max_age_s to do without them",
        hint=f"restore the checkpoint topic. Or, knowing that long-open steps come out incomplete, "
        f"{place.command('current')}; or {place.choices()}",
        partition=place.partition,
        reason="checkpoints_lost",
    )


def whole_now(group: Group, claimed: Collection[int]) -> int:
    """Value of `OffsetMetadata.whole` once these partitions are claimed as well."""
    have = {*group.points, *claimed}
    return max(group.whole, group.partitions if have >= set(range(group.partitions)) else 0)


def resolve(place: SourcePartition, where: Where, facts: Facts) -> int:
    """Resolve a position to an offset.

    Raises:
        UsageError: it is not in the log.
    """
    if where == "earliest":
        return facts.begin
    if where == "latest":
        return facts.end
    assert isinstance(where, int), "current is for those that have an offset"
    if not facts.begin <= where <= facts.end:
        raise UsageError(
            f"{place}: offset {where} is not in the log (it has {facts.begin} to {facts.end})",
            hint="name one of these, earliest or latest",
        )
    return where


def parse_where(text: str, where: str, *, current: bool) -> Where:
    """`earliest`, `latest`, an offset, and `current` where that is allowed. Raises `UsageError`."""
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if text == "current" and current:
        return "current"
    if text.isdecimal() and len(text) < 19:
        return int(text)
    choices = "earliest, latest, current or an offset" if current else "earliest, latest or an offset"
    raise UsageError(f"{where}: unknown position (got {text!r:.80})", hint=choices)


ALL: Final = -1


def parse_begin_at(texts: Sequence[str]) -> dict[int, Where]:
    """`[PARTITION=]POSITION`, several: by partition, `ALL` for those not named. Raises `UsageError`."""
    wanted: dict[int, Where] = {}
    for text in texts:
        partition, equals, position = text.rpartition("=")
        if equals and not (partition.isdecimal() and len(partition) < 10):
            raise UsageError(f"serve: --begin-at: unknown partition (got {partition!r:.80})", hint="3=earliest")
        number = int(partition) if equals else ALL
        where = parse_where(position, "serve: --begin-at", current=False)
        if number == ALL and isinstance(where, int):
            raise UsageError(f"serve: --begin-at: which partition begins at {where}?", hint=f"PARTITION={where}")
        if number in wanted:
            raise UsageError(f"serve: --begin-at: said twice (got {text!r:.80})", hint="once for each partition")
        wanted[number] = where
    return wanted
