"""The pages of a worker at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.broker import Broker
from processor.telemetry.metrics import METRICS
from tests.faults.service import Stage, created, delta, ended
from tests.kafka_tools import Names

SECRET = "the-users-own-words"
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path)


def test_the_pages_tell_how_it_stands(stage: Stage) -> None:
    with stage.serve() as service:
        service.until("a page", lambda: service.page("/healthz").status == 200)
        service.until_live()
        ready = service.page("/readyz").json
        assert ready["ok"] is True
        assert ready["assigned"] == [0, 1]
        stage.say(created("step_open", thread_id="thread_9"), delta("step_open", SECRET))
        stage.say(created("step_done"), ended("step_done"), b"garbage")
        service.until("all applied", lambda: service.metric("runstep_records_applied_total") == 5)
        service.until("published", lambda: len(stage.published()) == 1)

        (step,) = service.page("/steps").json["steps"]
        assert (step["step_id"], step["run_id"], step["thread_id"]) == ("step_open", "run_1", "thread_9")
        assert (step["status"], step["partition"], step["offset"]) == ("in_progress", 0, 0)
        assert step["age_s"] >= 0
        assert service.page("/steps?limit=0").status == 400

        # A transaction's marker lies behind the last record of an output, none on the source: lag reads 0.
        service.until("no lag", lambda: service.metric("runstep_lag_records", end="high_watermark") == 0)
        shown = service.page("/metrics").body
        names = {line.split("{")[0].split(" ")[0] for line in shown.splitlines() if not line.startswith("#")}
        known = {name for metric in METRICS for name in (metric.name, *(metric.name + s for s in SUFFIXES))}
        assert {name for name in names if name.startswith("runstep_")} <= known
        assert service.metric("runstep_records_rejected_total", reason="not_json") == 1
        pages = "".join(service.page(path).body for path in ("/", "/healthz", "/readyz", "/metrics", "/steps"))
        assert SECRET not in pages
        assert service.terminate() == 0
    assert SECRET not in service.tail(10_000)
    assert "garbage" not in service.tail(10_000)


def test_ready_only_when_restored(stage: Stage) -> None:
    """While another holds the group up, or before the first assignment, the answer is no, with the reason."""
    with stage.serve() as service:
        first = service.until("an answer", lambda: service.page("/readyz").status and service.page("/readyz"))
        if first.status == 503:
            assert first.json["reasons"]
        service.until_live()
        assert service.terminate() == 0
        assert service.page("/readyz").status == 0, "nobody listens when it has ended"
