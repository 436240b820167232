"""Which records of the output topics a rebuild takes clock marks from."""

from __future__ import annotations

import pytest

from processor.audit.judge.published_headers import mark_in
from processor.core.effects import REFERENCES, LogRecord, Reason
from processor.core.headers import CLOCK_MARK, SOURCE_PARTITION, SOURCE_TOPIC, dead_letter_headers
from processor.serve.restore import _mark_of

SOURCE = b"run-step-events"
MARK = (CLOCK_MARK, b"1700000000000@12")


@pytest.mark.parametrize("reason", list(Reason))
def test_of_dead_letters_the_references_alone(reason: Reason) -> None:
    """Also of a step that broke the fold at its deadline. The audit takes the same ones."""
    of_step = LogRecord(11, 1_700_000_000_000, b"step_1", b"{}")
    headers = (*dead_letter_headers(SOURCE, b"3", of_step, reason, "a detail"), MARK)
    letter = LogRecord(0, of_step.timestamp, of_step.key, of_step.value, headers)
    found = _mark_of(letter, SOURCE, dead_letter=True)
    assert found == ((3, 12, 1_700_000_000_000) if reason in REFERENCES else None)
    assert (mark_in(dict(headers)) is not None) == (found is not None)


def test_of_published_steps_those_of_the_source() -> None:
    headers = ((SOURCE_TOPIC, SOURCE), (SOURCE_PARTITION, b"3"), MARK)
    assert _mark_of(LogRecord(0, 0, b"s", b"{}", headers), SOURCE, dead_letter=False) == (3, 12, 1_700_000_000_000)
    assert _mark_of(LogRecord(0, 0, b"s", b"{}", headers), b"another", dead_letter=False) is None
    for broken in (b"", b"1@", b"@1", b"1", b"-1@2", b"1@2@3"):
        bad = (*headers[:2], (CLOCK_MARK, broken))
        assert _mark_of(LogRecord(0, 0, b"s", b"{}", bad), SOURCE, dead_letter=False) is None
