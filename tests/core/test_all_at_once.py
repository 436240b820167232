"""Both dialects on one key, repeats, odd headers, batches cut anywhere, a restart at every record: one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.effects import Effect, Headers, LogRecord, Record
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE
from processor.core.partition import PartitionState
from processor.core.run_steps.fast_path import Paths
from tests.core.gateways import faulty
from tests.core.raw_batches import raw_batch
from tests.core.record_columns_of import columns_of
from tests.core.responses_strategies import response_logs, usual_streams
from tests.core.strategies import RULES, lives, logs
from tests.core.test_ended_groups import Codec
from tests.core.test_responses_gateways import log_of, sent
from tests.core.test_restart import Topics, outcomes, portrait

KEYS = st.sampled_from([b"resp_1", b"resp_1", b"resp_2", b"k", b"", None])
NAMES = st.sampled_from([EVENT_ID, EVENT_ID, RUN_ID, SEQUENCE, "Runstep-Run-Id", "traceparent", "x" * 70, "", "ce_id"])
CONTENTS = st.sampled_from([None, b"", b"resp_1", b"r1", b"e1", b"s1:7", b"resp_1:3", b"\xff", b"i" * 63, b"i" * 64])
ODD_HEADERS: st.SearchStrategy[list[tuple[str, bytes | None]]] = st.one_of(
    st.lists(st.tuples(NAMES, CONTENTS), max_size=4),
    st.tuples(CONTENTS, CONTENTS, CONTENTS).map(
        lambda held: list(zip([EVENT_ID, RUN_ID, SEQUENCE], held, strict=True))
    ),
)
"""Names that come twice, are empty, or need two bytes for their length; contents that are null, empty, no UTF-8."""
MANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def mixed(draw: st.DrawFn) -> list[LogRecord]:
    """Some logs of both dialects in turns, each in its own order; records that come again, and odd headers."""
    through_gateway = faulty("resp_1").map(lambda case: log_of(sent(case[1])))
    run_steps, responses = st.one_of(logs(20), lives()), st.one_of(usual_streams(), response_logs(), through_gateway)
    rest = [list(draw(run_steps)), list(draw(responses)), *(list(log) for log in draw(st.lists(lives(), max_size=1)))]
    is_one_key, odd, now = draw(st.booleans()), draw(st.sampled_from([0, 0, 10, 3])), 1_000_000
    told: list[LogRecord] = []
    while rest:
        own = draw(st.sampled_from(rest))
        for _ in range(draw(st.integers(1, 6))):
            if own:
                told.append(own.pop(0))
                if draw(st.integers(0, 15)) == 0:
                    told += told[-draw(st.integers(1, 8)) :]
        if not own:
            rest = [log for log in rest if log]
    records, offset = list[LogRecord](), draw(st.integers(0, 3))
    for record in told:
        now += draw(st.sampled_from([0] * 12 + [1_000, 12_000, 30_000, -20_000]))
        headers: Headers = record.headers
        if odd and draw(st.integers(0, odd)) == 0:
            headers = draw(ODD_HEADERS)
        key = b"resp_1" if is_one_key else record.key if draw(st.integers(0, 15)) else draw(KEYS)
        records.append(LogRecord(offset, now, key, record.value, list(headers)))  # type: ignore[arg-type]
        offset += draw(st.sampled_from([1, 1, 1, 1, 3]))
    return records


def in_one_piece(records: Sequence[LogRecord], paths: Paths) -> tuple[list[Effect], Any, Any]:
    state = PartitionState("t", 3, RULES, paths=paths)
    effects = [effect for record in records for effect in state.apply([record])]
    return outcomes(effects), portrait(state), {name: count for name, count in state.counts.items() if count}


@MANY
@given(mixed(), st.data())
def test_batches_cut_anywhere_come_to_what_single_records_come_to(
    records: list[LogRecord], data: st.DataObject
) -> None:
    """By the slow path, and in each form by the fast one; ended steps in small groups that are compressed."""
    state = PartitionState("t", 3, RULES, grouping=Codec().grouping(data.draw(st.integers(1, 4))))
    effects, at = list[Effect](), 0
    while at < len(records):
        pieces = list[Any]()
        for size in data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=3)):
            piece: Sequence[Record] = records[at : at + size]
            at += len(piece)
            form = data.draw(st.sampled_from([raw_batch, columns_of, None])) if piece else None
            made = piece if form is None else form(piece)  # type: ignore[arg-type]
            pieces += list(made) if form is columns_of else [made]
        effects += state.apply_batches(pieces)
        if data.draw(st.integers(0, 3)) == 0:
            state.checkpoint(state.next_offset)
    counts = {name: count for name, count in state.counts.items() if count}
    assert (outcomes(effects), portrait(state), counts) == in_one_piece(records, Paths.SLOW)


@MANY
@given(mixed(), st.data())
def test_a_restart_at_every_record_comes_to_what_one_life_comes_to(
    records: list[LogRecord], data: st.DataObject
) -> None:
    topics = Topics(records[0].offset if records else 0)
    for record in records:
        state = topics.restore(RULES)
        effects = state.apply([one for one in records if state.next_offset <= one.offset <= record.offset])
        if data.draw(st.booleans()):
            effects += state.checkpoint(data.draw(st.sampled_from([0, state.next_offset - 3, state.next_offset])))
        topics.commit(state, effects)
    expected, expected_state, _ = in_one_piece(records, Paths.SLOW)
    assert topics.outcomes == expected
    restored = topics.restore(RULES)
    restored.apply([one for one in records if one.offset >= restored.next_offset])
    restored.moved_to(topics.committed[0])
    assert portrait(restored) == expected_state
