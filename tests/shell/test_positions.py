"""Where a partition starts, decided from what the broker answered. No broker."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.checkpoint_format import CheckpointEntry
from processor.core.checkpoints import CHECKPOINT_VERSION
from processor.core.offset_metadata import (
    METADATA_VERSION,
    MODE_ANEW,
    MODE_REBUILD,
    MODE_RESUME,
    LogIdentity,
    OffsetMetadata,
)
from processor.errors import UsageError
from processor.serve.positions import (
    ALL,
    Facts,
    Group,
    PositionRefused,
    SourcePartition,
    Start,
    StartReason,
    Where,
    all_of,
    judge,
    parse_begin_at,
    parse_where,
    resolve,
    unreachable,
    whole_now,
)

HERE, THERE = LogIdentity("cluster-a", "topic-1"), LogIdentity("cluster-b", "topic-2")
PLACE = SourcePartition("in", "in.checkpoints", "group", 1)
FACTS = Facts(HERE, 10, 100)
NOBODY = Group(2, {})


def checkpoint(applied_below: int, log: LogIdentity = HERE, kind: str = "step") -> bytes:
    saved = CheckpointEntry(CHECKPOINT_VERSION, kind, applied_below, touched_offset=applied_below - 1, log=log.encode())
    return msgspec.msgpack.encode(saved)


def point(restore_from: int = 50, kept: int = 0, log: LogIdentity = HERE, **changes: int) -> str:
    made = OffsetMetadata(restore_from, 7, "me", METADATA_VERSION, log.cluster, log.topic_id, kept)
    return msgspec.structs.replace(made, **changes).encode()


def decide(
    offset: int,
    metadata: str = "",
    found: dict[bytes, bytes] | None = None,
    group: Group = NOBODY,
    *,
    facts: Facts = FACTS,
    written: tuple[str, ...] = (),
    exactly_once: bool = True,
    start: str = "earliest",
    begin_at: Where | None = None,
) -> Start:
    return judge(
        PLACE, offset, metadata, facts, found or {}, group,
        written=written, exactly_once=exactly_once, start=start, begin_at=begin_at,  # type: ignore[arg-type]
    )  # fmt: skip


def refusal(*args: object, **kwargs: object) -> PositionRefused:
    with pytest.raises(PositionRefused) as caught:
        decide(*args, **kwargs)  # type: ignore[arg-type]
    assert "partition 1" in caught.value.message
    assert "run-steps reset --partition 1 --to" in caught.value.hint
    return caught.value


# --- no committed offset ----------------------------------------------------------------------------------------------


def test_a_first_start_begins_where_it_is_told_to() -> None:
    assert decide(-1)[:5] == (10, 10, -1, MODE_RESUME, None)
    assert decide(-1, start="latest")[:5] == (100, 100, -1, MODE_RESUME, None)


def test_a_first_start_of_several_workers_is_one() -> None:
    """Another has claimed its partitions and published, but nobody has yet seen an offset for each of them."""
    going_on = Group(2, {0: OffsetMetadata(10, version=METADATA_VERSION)})
    assert decide(-1, group=going_on, written=("done",)).offset == 10
    assert decide(-1, group=going_on, start="latest").offset == 100


def test_a_partition_that_was_added_begins_at_its_beginning() -> None:
    whole = Group(2, {0: OffsetMetadata(10, version=METADATA_VERSION, whole=1)})
    assert decide(-1, group=whole, start="latest", written=("done",)).offset == 10


@pytest.mark.parametrize(
    ("found", "group", "written", "says"),
    [
        ({b"s": checkpoint(20)}, NOBODY, (), "in.checkpoints holds 1 checkpoints"),
        ({}, Group(2, {0: OffsetMetadata(1, version=2, whole=2)}), (), "other partitions of group group have one"),
        ({}, Group(2, {0: OffsetMetadata(1)}), (), "other partitions of group group have one"),
        ({}, Group(2, {0: None}), (), "other partitions of group group have one"),
        ({}, NOBODY, ("done", "failed"), "records were published before (done, failed)"),
    ],
    ids=["checkpoints", "another partition", "of an older version", "set by hand", "outputs"],
)
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_lost_offset_is_no_first_start(
    found: dict[bytes, bytes], group: Group, written: tuple[str, ...], says: str, start: str
) -> None:
    error = refusal(-1, found=found, group=group, written=written, start=start)
    assert says in error.message
    assert "--begin-at 1=earliest" in error.hint
    asked = decide(-1, found=found, group=group, written=written, start=start, begin_at=15)
    assert (asked.offset, asked.mode, asked.reason) == (15, MODE_REBUILD, StartReason.ASKED)
    assert asked.checkpoints.unfit == list(found)


# --- a committed offset -----------------------------------------------------------------------------------------------


def test_a_position_of_this_log_is_resumed() -> None:
    found = {b"sa": checkpoint(60), b"sb": checkpoint(5), b"sc": checkpoint(60, kind="gone")}
    start = decide(60, point(50, 3), found)
    assert start[:5] == (60, 50, 7, MODE_RESUME, None)
    assert start.checkpoints.fit == found


def test_metadata_of_the_first_version_is_believed_as_it_was() -> None:
    old = LogIdentity()
    assert decide(60, '{"r":50,"t":7,"w":"me","v":1}', {b"sa": checkpoint(55, old)})[:5] == (60, 50, 7, 0, None)


def test_metadata_that_is_gone_is_rebuilt() -> None:
    for metadata in ("", "by hand", "{}"):
        start = decide(60, metadata, {b"sa": checkpoint(60)})
        assert (start.offset, start.mode, start.reason) == (60, MODE_REBUILD, StartReason.METADATA_MISSING)
        assert list(start.checkpoints.fit) == [b"sa"]


@pytest.mark.parametrize(
    ("offset", "metadata", "found", "reason"),
    [
        (101, point(), {}, "beyond_end"),
        (60, point(log=LogIdentity("cluster-b", "topic-1")), {}, "other_cluster"),
        (60, point(log=LogIdentity("cluster-a", "topic-2")), {}, "other_topic"),
        (60, point(log=THERE, mode=MODE_ANEW), {}, "other_cluster"),
        (60, point(version=METADATA_VERSION + 1), {}, "version"),
        (60, point(kept=1), {b"s": checkpoint(50, THERE)}, "other_checkpoints"),
        (60, "", {b"s": checkpoint(50, THERE)}, "other_checkpoints"),
        (60, point(kept=1), {b"s": checkpoint(61)}, "checkpoints_ahead"),
        (60, point(kept=1), {b"s": checkpoint(61, kind="gone")}, "checkpoints_ahead"),
        (60, "", {b"s": checkpoint(61)}, "checkpoints_ahead"),
        (60, '{"r":50,"v":1}', {b"s": checkpoint(61, LogIdentity())}, "checkpoints_ahead"),
    ],
)
def test_what_cannot_be_of_this_log_is_refused(
    offset: int, metadata: str, found: dict[bytes, bytes], reason: str
) -> None:
    assert refusal(offset, metadata, found).reason == reason


def test_another_cluster_is_named_beside_this_one() -> None:
    message = refusal(60, point(log=THERE)).message
    assert "cluster-a" in message
    assert "cluster-b" in message


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_lost_checkpoints_are_missed(kept: int) -> None:
    start = decide(60, point(kept=kept), {b"s": checkpoint(50)})
    assert (start.mode, start.reason, start.lost_of) == (MODE_REBUILD, StartReason.CHECKPOINTS_LOST, kept)
    assert f"{kept} checkpoints were committed" in unreachable(PLACE, start, 10).message


def test_at_least_once_checkpoints_may_be_ahead() -> None:
    """They are written before the offset is committed: a kill between the two leaves them so."""
    found = {b"s": checkpoint(70), b"t": checkpoint(20)}
    metadata = point(kept=1, exact=False)
    for exactly_once in (False, True):  # also in the first start after the mode was changed
        start = decide(60, metadata, found, exactly_once=exactly_once)
        assert (start.mode, start.reason, len(start.checkpoints.fit)) == (MODE_RESUME, None, 2)
        assert start.exact_from == 70, "a commit below it may not say that the two agree"
    assert decide(60, metadata, {b"t": checkpoint(20)}).exact_from == -1
    assert decide(60, metadata, {}, exactly_once=False).reason is StartReason.CHECKPOINTS_LOST
    assert decide(60, point(kept=0, exact=False), {}, exactly_once=False).reason is None


@pytest.mark.parametrize(
    ("offset", "metadata", "begin_at"),
    [
        (60, point(kept=-1, mode=MODE_REBUILD), None),
        (60, point(kept=-1, mode=MODE_REBUILD, exact=False), None),
        (60, "", None),
        (-1, "", 60),
    ],
    ids=["reset", "reset, claimed and killed", "set by a tool", "--begin-at"],
)
def test_at_least_once_a_rebuild_believes_no_checkpoint_ahead(offset: int, metadata: str, begin_at: Where) -> None:
    """What lies behind the offset is to be published again: a checkpoint ahead would have it skipped."""
    found = {b"s": checkpoint(70), b"t": checkpoint(20)}
    start = decide(offset, metadata, found, exactly_once=False, begin_at=begin_at)
    assert (start.offset, start.mode) == (60, MODE_REBUILD)
    assert (list(start.checkpoints.fit), start.checkpoints.unfit, start.exact_from) == ([b"t"], [b"s"], -1)


def test_what_was_asked_for_takes_the_checkpoints_that_fit() -> None:
    found = {b"s": checkpoint(50), b"t": checkpoint(61), b"u": checkpoint(50, THERE)}
    start = decide(60, point(kept=-1, mode=MODE_REBUILD), found, exactly_once=True)
    assert (start.mode, start.reason, sorted(start.checkpoints.unfit)) == (
        MODE_REBUILD,
        StartReason.ASKED,
        [b"t", b"u"],
    )
    assert decide(60, point(kept=-1, mode=MODE_ANEW), {b"s1": b"of a later version"}).checkpoints.unfit == [b"s1"]
    anew = decide(60, point(kept=-1, mode=MODE_ANEW), found)
    assert (anew.mode, anew.checkpoints.fit, len(anew.checkpoints.unfit)) == (MODE_ANEW, {}, 3)


def test_a_restore_point_that_retention_took_is_told() -> None:
    assert decide(60, point(5))[:5] == (60, 10, 7, MODE_RESUME, StartReason.SHORTENED)


@given(st.integers(-1, 120), st.integers(0, 120), st.integers(-1, 3), st.integers(0, 2), st.sets(st.integers(1, 120)))
def test_every_start_is_inside_the_log_and_believes_only_what_fits(
    offset: int, restore_from: int, kept: int, mode: int, applied: set[int]
) -> None:
    found = {b"s%d" % below: checkpoint(below) for below in applied}
    try:
        start = decide(offset, point(restore_from, kept, mode=mode), found)
    except PositionRefused:
        return
    if offset >= 0:
        assert start.offset == offset
    assert start.offset <= FACTS.end
    assert start.restore_from <= start.offset
    assert start.checkpoints.keys == len(found)
    if kept >= 0:
        assert all(below <= start.offset for below in applied if b"s%d" % below in start.checkpoints.fit)
        assert start.mode != MODE_RESUME or offset < 0 or kept == len(found)


# --- the group, and what is asked for -------------------------------------------------------------------------------


def test_a_group_is_whole_once_each_partition_has_an_offset() -> None:
    fresh = OffsetMetadata(0, version=METADATA_VERSION)
    assert whole_now(Group(3, {0: fresh}), [1]) == 0
    assert whole_now(Group(3, {0: fresh}), [1, 2]) == 3
    assert whole_now(Group(4, {0: msgspec.structs.replace(fresh, whole=3)}), [1]) == 3


def test_positions_as_they_are_asked_for() -> None:
    assert parse_begin_at(["earliest", "3=latest", "1=17"]) == {ALL: "earliest", 3: "latest", 1: 17}
    assert parse_where("current", "reset", current=True) == "current"
    for wrong in (["current"], ["17"], ["x=earliest"], ["1=earliest", "1=latest"], ["1=-2"], ["=5"], ["1="]):
        with pytest.raises(UsageError):
            parse_begin_at(wrong)
    assert (resolve(PLACE, "earliest", FACTS), resolve(PLACE, "latest", FACTS), resolve(PLACE, 11, FACTS)) == (
        10,
        100,
        11,
    )
    with pytest.raises(UsageError, match="it has 10 to 100"):
        resolve(PLACE, 101, FACTS)


def test_all_refusals_are_named() -> None:
    refused = [PositionRefused(f"partition {p}: no", hint=f"hint {p}", partition=p, reason="version") for p in (0, 1)]
    together = all_of(refused)
    assert together.message == "partition 0: no\npartition 1: no"
    assert together.hint == "hint 0"
