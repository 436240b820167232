"""Dead letters on a real broker: a poisoned topic repaired and proven; a redrive killed at its worst moments."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.cli.main import _run
from processor.core.effects import LogRecord, Reason
from processor.core.headers import dead_letter_headers
from processor.core.offset_metadata import LogIdentity
from processor.dead_letters.redriven_offsets import RedrivenOffsets
from processor.kafka.admin import Admin, ClusterTopics
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from tests.faults.service import Service, Stage, created, ended, toml
from tests.kafka_tools import Got, Names, Sent, committed, produce, read_topic, remake_topics

DEADLINE_S = 180
LETTERS = 1300
"""Three transactions of a redrive."""

KILL = """
import os
from processor.kafka.transactions import Transactions

ends, commit = 0, Transactions._commit

async def killed(self, offsets):
    global ends
    if offsets:
        ends += 1
    if offsets and ends == {at} and {before}:
        os._exit(9)
    done = await commit(self, offsets)
    if offsets and ends == {at}:
        os._exit(9)
    return done

Transactions._commit = killed
"""
"""Ends the process, as kill -9 does, right before or right after the end of a transaction."""


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path, partitions=2)


class Said(NamedTuple):
    stdout: str
    stderr: str


def dead_letters(stage: Stage, *arguments: str, expect: int = 0, changes: Any = None) -> Said:
    """`run-steps dead-letters ...`, in this process."""
    config = stage.home / "letters.toml"
    config.write_text(toml(stage.tables(changes)))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _run(["dead-letters", *arguments, "--config", str(config)])
    said = Said(out.getvalue(), err.getvalue())
    assert code == expect, (arguments, code, said)
    return said


def killed_redrive(stage: Stage, *arguments: str, at: int, before: bool) -> None:
    """A redrive in a process that ends by itself, at the end of its transaction number `at`."""
    config = stage.home / "letters.toml"
    config.write_text(toml(stage.tables()))
    (stage.home / "sitecustomize.py").write_text(KILL.format(at=at, before=before))
    path = os.pathsep.join([str(stage.home), str(Path(__file__).parents[2])])
    command = [sys.executable, "-m", "processor", "dead-letters", "redrive", *arguments, "--config", str(config)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, timeout=DEADLINE_S, check=False)
    assert done.returncode == 9


def redriven(stage: Stage, *arguments: str) -> Any:
    return json.loads(dead_letters(stage, "redrive", "--json", *arguments).stdout)


def listed(stage: Stage, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in dead_letters(stage, "list", "--json", *arguments).stdout.splitlines()]


def until_committed(stage: Stage, service: Service) -> None:
    """Wait until all of the source is folded and committed."""
    ends = Counter(got.partition for got in read_topic(stage.bootstrap, stage.source))
    service.until("all committed", lambda: all(stage.committed().get(p, 0) >= n for p, n in ends.items()), DEADLINE_S)


def test_a_poisoned_topic_is_repaired_and_proven(stage: Stage) -> None:
    """Steps refused for want of room come through once there is room; garbage comes back until it is parked."""
    few = {"steps": {"max_open_steps": 5, "idle_grace_s": 86_400.0, "ended_retention_s": 1}}
    steps = [f"step_{number}" for number in range(8)]
    with stage.serve(few) as service:
        service.until_live()
        stage.say(*(created(step) for step in steps), b"garbage \x1b[2J", headers=[("theirs", b"\x1b]0;x\x07")])
        stage.say(*(ended(step) for step in steps))
        later = int(time.time() * 1000) + 60_000  # the refused steps are forgotten by then
        stage.say(created("step_later"), ended("step_later"), timestamp=later)
        until_committed(stage, service)
        refused = listed(stage)
        assert Counter(letter["reason"] for letter in refused) == {"too_many_open_steps": 6, "not_json": 1}
        assert {letter["state"] for letter in refused} == {"waiting"}
        assert "left alone" not in dead_letters(stage, "redrive", "--dry-run", "--reason", "too_many_open_steps").stdout
        assert "say --first" in dead_letters(stage, "redrive", expect=64).stderr
        assert redriven(stage, "--first", "--reason", "too_many_open_steps") == {
            "redriven": 6, "reasons": {"too_many_open_steps": 6}, "left": {},
        }  # fmt: skip
        assert redriven(stage, "--reason", "too_many_open_steps")["redriven"] == 0
        for attempt in (1, 2, 3):
            assert redriven(stage)["redriven"] == 1, attempt
            until_committed(stage, service)
            service.until("rejected again", lambda: len(stage.letters()) == 7 + attempt)  # noqa: B023
        assert redriven(stage) == {"redriven": 0, "reasons": {}, "left": {"parked": 1}}
        until_committed(stage, service)
        assert service.terminate() == 0
    published = Counter(got.key for got in stage.published())
    assert published == Counter(step.encode() for step in [*steps, "step_later"])
    assert Counter(letter["state"] for letter in listed(stage)) == {"redriven": 9, "parked": 1}
    assert stage.replayed(few) is Outcome.PROVEN
    shown_by_command(stage)


def shown_by_command(stage: Stage) -> None:
    """What reaches a terminal: no contents unasked, and never a control sequence."""
    (letter,) = listed(stage, "--state", "parked")
    plain = dead_letters(stage, "show", letter["letter"]).stdout
    assert "garbage" not in plain
    assert "reason: not_json" in plain
    contents = dead_letters(stage, "show", letter["letter"], "--contents").stdout
    assert "value: garbage \ufffd[2J" in contents
    assert "own_headers: theirs = \ufffd]0;x\ufffd" in contents
    counted = json.loads(dead_letters(stage, "stats", "--json").stdout)
    assert counted["total"] == 10
    assert counted["reasons"] == {"too_many_open_steps": 6, "not_json": 4}
    assert counted["attempts"] == {"1": 7, "2": 1, "3": 1, "4": 1}
    assert "\x1b" not in dead_letters(stage, "stats").stdout + dead_letters(stage, "list").stdout + contents


# --- killed -------------------------------------------------------------------------------------------------------


def fill(stage: Stage, count: int = LETTERS) -> list[Sent]:
    """Dead letters as a worker writes them, in transactions; returns the records that were rejected."""
    rejected = [
        Sent(b"not json %d" % number, b"run_%d" % (number % 7), [("n", b"%d" % number)], 1_700_000_000_000 + number)
        for number in range(count)
    ]
    letters = []
    for offset, sent in enumerate(rejected):
        record = LogRecord(offset, sent.timestamp or 0, sent.key, sent.value, tuple(sent.headers))
        reason = Reason.NOT_JSON if offset % 5 else Reason.MALFORMED
        headers = dead_letter_headers(stage.source.encode(), b"%d" % (offset % 2), record, reason, "no reason")
        letters.append(Sent(sent.value, sent.key, headers, sent.timestamp))
    for begin in range(0, count, 300):
        chunk = letters[begin : begin + 300]
        produce(stage.bootstrap, stage.dead_letter, chunk, transactional_id=f"{stage.group}.worker")
    return rejected


def back_in_the_source(stage: Stage, rejected: list[Sent]) -> list[Got]:
    """Every record is there exactly once and as it was, where it was."""
    found = read_topic(stage.bootstrap, stage.source)
    numbers = Counter(int(got.header("n") or b"-1") for got in found)
    twice = [number for number, times in numbers.items() if times > 1]
    assert not twice, f"redriven more than once: {twice[:5]}"
    assert len(numbers) == len(rejected), f"missing: {sorted(set(range(len(rejected))) - numbers.keys())[:5]}"
    for got in found:
        number = int(got.header("n") or b"")
        sent = rejected[number]
        assert (got.value, got.key, got.timestamp) == (sent.value, sent.key, sent.timestamp)
        assert got.headers[:1] == tuple(sent.headers)
        assert [name for name, _ in got.headers[1:]] == ["runstep-attempt", "runstep-redriven"]
        assert got.partition == number % 2
    return found


def test_a_redrive_that_is_killed_goes_on_where_it_was(stage: Stage) -> None:
    """At its worst moments: records and positions are written and not committed; committed and not yet known so."""
    rejected = fill(stage)
    killed_redrive(stage, "--first", at=2, before=True)
    assert len(read_topic(stage.bootstrap, stage.source, isolation="read_uncommitted")) > 500
    killed_redrive(stage, at=1, before=False)
    killed_redrive(stage, at=1, before=True)
    last = redriven(stage)
    assert last["redriven"] == LETTERS - 1000, "two transactions were committed before"
    back_in_the_source(stage, rejected)
    assert redriven(stage)["redriven"] == 0


def test_a_second_redrive_ends_the_first(stage: Stage) -> None:
    """Two at once: the second goes on where the first was, the first is fenced and ends with 75."""
    rejected = fill(stage)
    config = stage.home / "first.toml"
    config.write_text(toml(stage.tables()))
    command = [sys.executable, "-m", "processor", "dead-letters", "redrive", "--first", "--rate", "100"]
    with Service([*command, "--config", str(config)], stage.home, "first") as first:
        first.until("it has begun", lambda: read_topic(stage.bootstrap, stage.source), DEADLINE_S)
        assert 0 < redriven(stage)["redriven"] < LETTERS
        assert first.ended(DEADLINE_S) == 75, first.tail()
        assert "another redrive was started" in first.said()
    back_in_the_source(stage, rejected)


def test_some_now_and_the_rest_later(stage: Stage) -> None:
    """By reason, by number, by letter, with a rate: what was left out comes later, and nothing twice."""
    rejected = fill(stage, 300)
    assert redriven(stage, "--first", "--reason", "malformed", "--max", "20", "--rate", "10000")["redriven"] == 20
    (one,) = listed(stage, "--state", "waiting", "--limit", "1")
    assert redriven(stage, "--letter", one["letter"]) == {
        "redriven": 1, "reasons": {one["reason"]: 1}, "left": {},
    }  # fmt: skip
    assert redriven(stage, "--reason", "malformed")["redriven"] == 40
    assert redriven(stage, "--dry-run") == {
        "redriven": 0, "would_redrive": 239, "reasons": {"not_json": 239}, "left": {},
    }  # fmt: skip
    assert redriven(stage)["redriven"] == 239
    found = back_in_the_source(stage, rejected)
    assert len(found) == 300
    ((offset, _),) = committed(stage.bootstrap, f"{stage.group}.dead-letters", stage.dead_letter).values()
    assert offset == max(got.offset for got in stage.letters()) + 1


def test_positions_of_another_topic_and_of_another_cluster(stage: Stage) -> None:
    """Of an earlier topic of that name they say nothing; of another cluster's they would skip letters."""
    fill(stage, 40)
    here = ClusterTopics("", {})

    async def commit(log: LogIdentity | None) -> None:
        nonlocal here
        async with Admin(Connection.build(stage.bootstrap)) as admin:
            here = await admin.cluster_topics([stage.dead_letter])
            metadata = RedrivenOffsets().encode(30, log) if log is not None else ""
            await admin.commit_offsets(f"{stage.group}.dead-letters", stage.dead_letter, {0: Committed(30, metadata)})

    asyncio.run(commit(None))
    assert "not that of a redrive" in dead_letters(stage, "redrive", expect=65).stderr
    asyncio.run(commit(LogIdentity("elsewhere", "another")))
    assert "of another cluster" in dead_letters(stage, "redrive", expect=65).stderr
    asyncio.run(commit(LogIdentity(here.cluster_id, "another")))
    assert "was created again" in dead_letters(stage, "redrive", "--dry-run").stderr
    assert redriven(stage)["redriven"] == 40


def test_what_the_source_cannot_take_is_left_alone(stage: Stage) -> None:
    remake_topics(stage.bootstrap, stage.source, partitions=1, config={"max.message.bytes": "1100"})
    record = LogRecord(0, 1_700_000_000_000, b"k", b"x" * 1000)
    for partition in (b"0", b"1"):
        headers = dead_letter_headers(stage.source.encode(), partition, record, Reason.NOT_JSON, "no reason")
        produce(stage.bootstrap, stage.dead_letter, [Sent(record.value, record.key, headers, record.timestamp)])
    small = LogRecord(1, 1_700_000_000_000, b"k", b"x" * 10)
    headers = dead_letter_headers(stage.source.encode(), b"0", small, Reason.NOT_JSON, "no reason")
    produce(stage.bootstrap, stage.dead_letter, [Sent(small.value, small.key, headers, small.timestamp)])
    assert redriven(stage, "--first") == {
        "redriven": 1, "reasons": {"not_json": 1}, "left": {"too_large": 1, "no_partition": 1},
    }  # fmt: skip
    remake_topics(stage.bootstrap, stage.source, partitions=1, config={"message.timestamp.before.max.ms": "86400000"})
    recent = LogRecord(2, int(time.time() * 1000), b"k", b"y")
    headers = dead_letter_headers(stage.source.encode(), b"0", recent, Reason.NOT_JSON, "no reason")
    produce(stage.bootstrap, stage.dead_letter, [Sent(recent.value, recent.key, headers, recent.timestamp)])
    assert redriven(stage) == {
        "redriven": 1, "reasons": {"not_json": 1}, "left": {"timestamp_refused": 1, "no_partition": 1},
    }  # fmt: skip
    changes = {"delivery": {"mode": "at_least_once"}}
    assert "needs transactions" in dead_letters(stage, "redrive", expect=78, changes=changes).stderr
