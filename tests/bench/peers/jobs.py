"""The jobs: each puts a topic's events there, and knows what must come out of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from processor.broker import Broker
from processor.kafka.records import partition_of
from tests.bench import recorded_job
from tests.bench.load import Expected, Job
from tests.bench.verdict import named
from tests.bench.worker import STATUSES, Header, put, put_job

OPEN_RUNS: Final = 2_000
_STEP: Final = "thread.run.step."


def calls(broker: Broker, topic: str, events: int, partitions: int) -> Expected:
    """The job of `tests/bench/load.py`: steps of function calls, and nothing else on the topic."""
    return put_job(broker, topic, Job(events, partitions=partitions, open_runs=OPEN_RUNS))


def recorded(broker: Broker, topic: str, events: int, partitions: int) -> Expected:
    """The job of `tests/bench/recorded_job.py`, with the headers that `publish` writes, keyed by the run."""
    expected = Expected()
    put(broker, topic, partitions, _keyed(events, partitions, expected))
    return expected


JOBS: Final[Mapping[str, Callable[[Broker, str, int, int], Expected]]] = {"calls": calls, "recorded": recorded}


def _keyed(events: int, partitions: int, expected: Expected) -> Iterator[tuple[int, int, bytes, bytes, list[Header]]]:
    for made in recorded_events(events, expected, open_runs=OPEN_RUNS):
        yield partition_of(made.key, partitions), made.timestamp, made.key, made.value, made.headers


def recorded_events(events: int, expected: Expected, *, open_runs: int) -> Iterator[recorded_job.Made]:
    """Yield the records of `recorded_job`; fills `expected` on the way, from the records alone.

    Raises:
        RuntimeError: the job says that another number of steps must be published than end in it.
    """
    job, texts = recorded_job.Expected(), _Texts()
    for made in recorded_job.recorded(events, job, open_runs=open_runs):
        expected.events += 1
        expected.bytes += len(made.value)
        texts.note(made.value, expected)
        yield made
    if job.published != len(expected.lines):
        raise RuntimeError(f"{len(expected.lines)} steps end in the job, and it says {job.published}")


class _Texts:
    """The pieces of each open step's texts, grouped as they are met and joined at its end: no fold."""

    def __init__(self) -> None:
        self._pieces: dict[str, dict[tuple[str, str], list[str]]] = {}

    def note(self, value: bytes, expected: Expected) -> None:
        event = json.loads(value)
        name, data = event["event"], event["data"]
        if not name.startswith(_STEP):
            return
        pieces = self._pieces.setdefault(data["id"], {})
        if name.endswith(".delta"):
            for call in data["delta"]["step_details"]["tool_calls"]:
                for field, text in _pieces(call):
                    pieces.setdefault((call["type"], field), []).append(text)
        elif name.removeprefix(_STEP) in STATUSES:
            joined = [(tool, field, "".join(found)) for (tool, field), found in self._pieces.pop(data["id"]).items()]
            texts = [text if tool == "function" else named(tool, field, text) for tool, field, text in joined]
            expected.ended(data["status"], data["id"], texts)


def _pieces(call: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The field and the text of each piece in a delta's call. A step of the job has one call, with one output."""
    own = call.get(call["type"], call)
    for field in ("input", "arguments"):
        if field in own:
            yield field, own[field]
    for output in own.get("outputs", ()):
        yield "logs", output["logs"]
