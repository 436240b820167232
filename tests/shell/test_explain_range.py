"""Which range of the source `explain` reads for a step; and that what names another place changes nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import pytest

from processor.archives import ArchivedRecord
from processor.audit.judge.settled import settled_after_ms
from processor.audit.judge.verdicts import Verdict
from processor.audit.replay.task_judge import expected_records
from processor.core.effects import LogRecord
from processor.core.headers import CLOCK_MARK, INFERRED
from tests.core.scripted_log import START_S, Play, run
from tests.shell import mutations
from tests.shell.test_explain import Simulated, told

NEED_MS: Final = settled_after_ms(mutations.RULES, retentions=2, readings=2)


def published_from(play: Play) -> mutations.World:
    """The log of a play on partition 0 of the source, and what a worker publishes of it."""
    log = [
        ArchivedRecord(mutations.SOURCE, 0, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in play.log
    ]
    made = mutations.World({0: [*log]}, {0: len(log)}, {})
    places = expected_records(mutations.task_of(made, 0))
    state = mutations._state(0, 0, -1)
    for effect in state.apply(log):
        placed = places.whole(effect)
        if placed is not None:
            out = made.topics.setdefault((placed.topic, placed.partition or 0), [])
            out.append(LogRecord(len(out), placed.timestamp, placed.key, placed.value, tuple(placed.headers)))
    return made


def where(made: mutations.World) -> tuple[tuple[str, int], LogRecord]:
    """The one record of `s1`, and its place."""
    ((place, record),) = [(p, r) for p, log in made.topics.items() for r in log if r.key == b"s1"]
    return place, record


@pytest.mark.parametrize(("begin", "marked_s"), [(0, 2 * START_S), (1, 1 << 40)], ids=["before it", "of the future"])
def test_a_mark_that_cannot_have_been_set_moves_no_time(tmp_path: Path, begin: int, marked_s: int) -> None:
    """Who writes `<any>@0` under another key would have an honest step called different: with its time, a run's end
    that was forgotten is remembered. None is open before the log begins, and no clock has come to the future."""
    play = Play(mutations.RULES)
    for _ in range(begin):
        play.put(b"[DONE]")
        play.at += 2 * NEED_MS / 1_000
    play.say("run.failed", run("failed"))
    play.wait(mutations.RULES.ended_retention_s + 1)
    play.say("run.completed", run("completed"))
    play.created()
    made = published_from(play)
    place, record = where(made)
    logs = Simulated(made, tmp_path)
    found = told(logs, "s1")
    assert found.verdict is Verdict.EQUAL
    assert found.lives[0].read == (begin, begin + 4), "it is read with the ends of its run"
    marked = ((INFERRED, b"deadline"), (CLOCK_MARK, b"%d@%d" % (marked_s * 1_000, begin)))
    other = msgspec.structs.replace(record, offset=record.offset + 1, key=b"other", headers=(*record.headers, *marked))
    made.topics[place].append(other)
    assert told(logs, "s1") == found
