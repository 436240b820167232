"""A state without metadata: folded silently from the log's beginning, it is the one that was lost."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.checkpoints import read_checkpoint
from processor.core.effects import DeadLetter, Effect, LogRecord, Publish
from processor.core.headers import CLOCK_MARK
from processor.core.offset_metadata import LogIdentity, OffsetMetadata
from processor.core.partition import PartitionState
from tests.core.responses_strategies import response_logs
from tests.core.strategies import RULES, lives, logs
from tests.core.test_restart import Topics, mark, outcomes, portrait
from tests.examples import examples

LOG = LogIdentity("cluster", "topic").encode()
NARROW = msgspec.structs.replace(RULES, max_record_bytes=400)
CROWDED = msgspec.structs.replace(RULES, max_open_steps=1)


def marks_of(effects: list[Effect]) -> list[tuple[int, int]]:
    """The clock marks that published records carry: (position, ms)."""
    found = set()
    for effect in effects:
        if isinstance(effect, Publish | DeadLetter):
            for name, content in effect.headers:
                if name == CLOCK_MARK and content is not None:
                    ms, _, position = content.partition(b"@")
                    found.add((int(position), int(ms)))
    return sorted(found)


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives(), response_logs()), st.data())
def test_a_rebuilt_state_is_the_one_that_was_lost(records: list[LogRecord], data: st.DataObject) -> None:
    """Offset kept, metadata and checkpoints gone: the log and the published clock marks give all of it back."""
    rules = data.draw(st.sampled_from([RULES, NARROW, CROWDED]))
    start = records[0].offset if records else 0
    state = PartitionState("t", 3, rules, next_offset=start, live_from=start, log=LOG)
    cut = data.draw(st.integers(0, len(records)))
    effects: list[Effect] = []
    for record in records[:cut]:
        effects += state.apply([record])
        if data.draw(st.integers(0, 4)) == 0:
            effects += mark(state, 1)
    position = state.next_offset
    before = portrait(state)

    found = PartitionState("t", 3, rules, next_offset=start, live_from=position, log=LOG)
    unfit = data.draw(st.lists(st.sampled_from([b"sold", b"ss1", b"rr1"]), unique=True))
    found.rebuild(unfit, marks_of(effects), refusing=True)
    topics = Topics(start)
    topics.checkpoints = dict.fromkeys(unfit, b"of another log")
    if data.draw(st.booleans()):  # the fold ends between two records, or with the first live one
        found.apply(records[:cut])
        found.moved_to(position)
        assert portrait(found) == before
        after: list[Effect] = [*found.rebuilt(), *found.apply(records[cut:])]
    else:
        assert found.is_live == (start == position)
        came = found.apply(records)
        found.moved_to(position)
        after = [*found.rebuilt(), *came]
    expected = state.apply(records[cut:])
    assert outcomes(after) == outcomes(expected)
    # What the checkpoint topic has been told is what the next owner needs.
    topics.commit(found, after)
    restored = topics.restore(rules)
    restored.apply([record for record in records if record.offset >= restored.next_offset])
    restored.moved_to(topics.committed[0])
    assert portrait(restored) == portrait(state)
    assert all(read_checkpoint(key, value).log == LOG for key, value in topics.checkpoints.items())


def test_metadata_of_every_version_is_read() -> None:
    old = OffsetMetadata.decode('{"r":5,"t":7,"w":"me","v":1}')
    assert old == OffsetMetadata(5, 7, "me")
    assert old.log.differs(LogIdentity("c", "t")) == ""
    assert OffsetMetadata.decode("") is None
    full = OffsetMetadata(1 << 50, 1 << 50, "g" * 213, 2, "k" * 22, "i" * 22, 1 << 30, 10_000, 2)
    assert OffsetMetadata.decode(full.encode()) == full
    usual = OffsetMetadata(1 << 40, 1 << 41, "run-steps.0123456789ab", 2, "k" * 22, "i" * 22, 99, 99, 2)
    assert len(usual.encode()) < 300


def test_two_logs_are_told_apart_only_by_what_both_know() -> None:
    ours = LogIdentity("one", "a")
    assert ours.differs(LogIdentity("two", "a")) == "cluster"
    assert ours.differs(LogIdentity("one", "b")) == "topic"
    for other in (ours, LogIdentity("one", ""), LogIdentity("", ""), LogIdentity("", "a")):
        assert ours.differs(other) == ""
        assert other.differs(ours) == ""
        assert LogIdentity.decode(other.encode()) == other
