"""Headers that our own fold has made are found where it puts them, and by name wherever else they stand."""

from __future__ import annotations

import msgspec
import pytest

from processor.archives import ArchivedRecord
from processor.audit.judge import published_headers
from processor.audit.judge.published_headers import offsets_in, own_header, redriven_in
from processor.audit.replay.regime_history import RegimeHistory
from processor.core.effects import LogRecord, Publish
from processor.core.headers import (
    CLOCK_MARK,
    DIGEST,
    EVENTS,
    FIRST_OFFSET,
    LAST_OFFSET,
    REDRIVEN,
    RULES,
    VERSION,
)
from processor.core.partition import PartitionState
from tests.shell import mutations

AT = {
    FIRST_OFFSET: published_headers.FIRST_OFFSET_AT,
    LAST_OFFSET: published_headers.LAST_OFFSET_AT,
    EVENTS: published_headers.EVENTS_AT,
    VERSION: published_headers.VERSION_AT,
    RULES: published_headers.RULES_AT,
    DIGEST: published_headers.DIGEST_AT,
}


@pytest.fixture(scope="module")
def published() -> list[Publish]:
    effects: list[Publish] = []
    for partition, log in mutations.world(5, runs=20).logs.items():
        state = PartitionState(mutations.SOURCE, partition, mutations.RULES)
        records = [item for item in log if isinstance(item, ArchivedRecord)]
        found = state.apply(records[: len(records) // 2])  # so that steps are open
        while (due := state.next_due_ms()) is not None:
            found += state.advance(due)
        effects += [effect for effect in found if isinstance(effect, Publish)]
    assert any(CLOCK_MARK in dict(effect.headers) for effect in effects)
    return effects


def test_the_fold_puts_them_where_they_are_looked_for(published: list[Publish]) -> None:
    assert all(effect.headers[at][0] == name for effect in published for name, at in AT.items())


def test_in_another_order_they_are_found_by_name(published: list[Publish]) -> None:
    for effect in published:
        named = dict(effect.headers)
        mark = named.get(CLOCK_MARK)
        cause = int(named[LAST_OFFSET] or b"") if mark is None else int(mark.partition(b"@")[2]) - 1
        turned = msgspec.structs.replace(effect, headers=(*effect.headers[1:], effect.headers[0]))
        for one in (effect, turned):
            assert offsets_in(one) == (int(named[FIRST_OFFSET] or b""), cause)
            assert {name: own_header(one.headers, at, name) for name, at in AT.items()} == {n: named[n] for n in AT}


def test_settings_in_force_are_noted_alike_from_our_own_headers(published: list[Publish]) -> None:
    own, any_order = RegimeHistory(), RegimeHistory()
    for effect in published:
        cause = offsets_in(effect)[1]
        own.note_own(effect.headers, cause)
        any_order.note(effect.headers, cause)
    assert own.in_force() == any_order.in_force() != ()


def test_a_redriven_record_counts_once() -> None:
    def record(*names: str) -> LogRecord:
        return LogRecord(0, 0, None, None, tuple((name, b"1") for name in names))

    assert redriven_in([record(), record("a", REDRIVEN, REDRIVEN), record("a"), record(REDRIVEN)]) == 2
