"""`run-steps export otlp` of what a worker published on a real broker, to a receiver that decodes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from processor.broker import Broker
from processor.errors import BrokerUnavailable
from processor.otlp.command import BATCH_SPANS
from processor.otlp.spans import run_span_id, trace_id_of
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage, created, ended, toml
from tests.kafka_tools import Names, committed
from tests.otlp_receiver import Receiver, attributes

RUNS = 300


def export(stage: Stage, receiver: Receiver, *options: str) -> subprocess.CompletedProcess[str]:
    config = stage.home / "export.toml"
    config.write_text(toml(stage.tables()))
    command = [sys.executable, "-m", "processor", "export", "otlp", "--config", str(config)]
    return subprocess.run(
        [*command, "--endpoint", receiver.endpoint, *options], capture_output=True, text=True, timeout=120
    )


def positions(stage: Stage) -> dict[str, dict[int, tuple[int, str]]]:
    group = f"{stage.group}.otlp"
    return {topic: committed(stage.bootstrap, group, topic) for topic in stage.outcomes.values()}


def test_every_published_step_becomes_spans_at_least_once(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Both dialects. A collector that fails in the middle costs nothing; what is sent again has the same ids."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    simulation = Simulation(Parameters(runs=RUNS, seed=5, partitions=2, responses=0.5))
    records = list(simulation)
    with stage.serve() as worker:
        worker.until_live()
        stage.put(records)
        stage.until_done(records, worker)
        assert worker.terminate() == 0
    published = stage.published()
    snapshots = [json.loads(got.value or b"") for got in published]
    assert len(published) > BATCH_SPANS

    with Receiver() as receiver:
        receiver.answers = [200] + [503] * 1000
        failed = export(stage, receiver, "--timeout", "1")
        assert failed.returncode == BrokerUnavailable.exit_code, failed.stderr
        assert not any(positions(stage).values()), "no position before the collector has all"
        assert len(receiver.spans()) >= BATCH_SPANS
        before = {span.span_id for span in receiver.spans()}

        receiver.requests.clear()
        receiver.answers = []
        done = export(stage, receiver)
        assert done.returncode == 0, done.stderr
        spans = receiver.spans()
        assert done.stdout.startswith(f"{len(published):,} steps of "), done.stdout
        assert f"{len(spans):,} spans" in done.stdout
        assert before <= {span.span_id for span in spans}, "sent again under the same ids"

        steps = Counter(str(attributes(span).get("run_steps.step.id", "")) for span in spans)
        assert set(steps) - {""} == {snapshot["id"] for snapshot in snapshots}
        roots = [span for span in spans if not span.parent_span_id]
        runs = {snapshot["run_id"] or snapshot["id"] for snapshot in snapshots}
        assert {(span.trace_id, span.span_id) for span in roots} == {(trace_id_of(r), run_span_id(r)) for r in runs}
        assert len(roots) == len(runs)
        bounds = {span.span_id: (span.start_time_unix_nano, span.end_time_unix_nano) for span in roots}
        for span in spans:
            if span.parent_span_id:
                begin, end = bounds[span.parent_span_id]
                assert begin <= span.start_time_unix_nano <= span.end_time_unix_nano <= end
        operations = Counter(str(attributes(span).get("gen_ai.operation.name", "")) for span in spans)
        assert operations.keys() >= {"invoke_agent", "execute_tool", "chat"}

        receiver.requests.clear()
        again = export(stage, receiver)
        assert (again.returncode, receiver.spans()) == (0, []), "nothing was published since"
        assert again.stdout.startswith("0 steps of 0 runs")
        whole = export(stage, receiver, "--since", "2024-01-01")
        assert whole.returncode == 0, whole.stderr
        assert Counter(span.span_id for span in receiver.spans()) == Counter(span.span_id for span in spans)


def test_a_run_that_may_go_on_is_exported_again_whole(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Its span is as wide as all its steps, though one export has seen only the first of them."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    now = 1_764_400_000
    with stage.serve() as worker, Receiver() as receiver:
        worker.until_live()
        stage.say(created("step_1", created_at=now), ended("step_1", created_at=now, completed_at=now + 1))
        worker.until("published", lambda: len(stage.published()) == 1)
        first = export(stage, receiver, "--run-idle", "1000000000")
        assert "runs that may go on: the next export begins" in first.stdout, first.stdout + first.stderr
        stage.say(created("step_2", created_at=now + 5), ended("step_2", created_at=now + 5, completed_at=now + 9))
        worker.until("published", lambda: len(stage.published()) == 2)
        receiver.requests.clear()
        second = export(stage, receiver)
        assert second.stdout.startswith("2 steps of 1 runs"), second.stdout + second.stderr
        (root,) = (span for span in receiver.spans() if not span.parent_span_id)
        assert (root.start_time_unix_nano, root.end_time_unix_nano) == (now * 10**9, (now + 9) * 10**9)
        receiver.requests.clear()
        assert export(stage, receiver).stdout.startswith("0 steps"), "the run was settled"
