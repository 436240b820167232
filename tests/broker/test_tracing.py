"""A worker that is traced, on a real broker: all its units arrive at a receiver that decodes them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage, created, ended
from tests.kafka_tools import Names, Sent, produce
from tests.otlp_receiver import Receiver, attributes

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_every_unit_is_traced_from_its_poll_to_its_commit(broker: Broker, names: Names, tmp_path: Path) -> None:
    """And what is published carries the producer's context, not the worker's."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    records = list(Simulation(Parameters(runs=60, seed=3, partitions=2)))
    step = created("step_traced"), ended("step_traced")
    with Receiver() as receiver, stage.serve({"tracing": {"enabled": True, "endpoint": receiver.endpoint}}) as worker:
        worker.until_live()
        stage.put(records)
        stage.until_done(records, worker)
        headers = (("traceparent", TRACE.encode()), ("tracestate", b"a=b"))
        produce(stage.bootstrap, stage.source, [Sent(value, b"run_traced", headers) for value in step])
        worker.until("published", lambda: any(got.key == b"step_traced" for got in stage.published()))
        assert worker.terminate() == 0
        spans = receiver.spans()
    (published,) = (got for got in stage.published() if got.key == b"step_traced")
    assert dict(published.headers)["traceparent"] == TRACE.encode()
    assert dict(published.headers)["tracestate"] == b"a=b"

    by_trace: dict[bytes, list[object]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    counted: Counter[str] = Counter()
    for unit in by_trace.values():
        (root,) = (span for span in unit if not span.parent_span_id)  # type: ignore[attr-defined]
        assert root.name == "unit"  # type: ignore[attr-defined]
        counted["unit"] += int(attributes(root).get("run_steps.unit.records", 0))
        for span in unit:
            if span is not root:
                assert span.parent_span_id == root.span_id  # type: ignore[attr-defined]
                told = attributes(span)
                assert told["messaging.destination.name"] == stage.source
                counted[str(told["messaging.operation.name"])] += int(told["messaging.batch.message_count"])
    everything = len(records) + len(step)
    assert counted == {"unit": everything, "poll": everything, "process": everything, "commit": everything}
    links = {link.span_id.hex() for span in spans if span.name.startswith("process ") for link in span.links}
    assert links >= {"b7ad6b7169203331"}
    assert not worker.logged("library_warning")


def test_a_worker_is_not_stopped_by_a_collector_that_is_away(broker: Broker, names: Names, tmp_path: Path) -> None:
    """It says so, publishes everything, and ends in time."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    simulation = Simulation(Parameters(runs=20, seed=4, partitions=2))
    records = list(simulation)
    away = {"tracing": {"enabled": True, "endpoint": "http://127.0.0.1:1/v1/traces"}}
    with stage.serve(away, workers=2) as worker:
        worker.until_live()
        stage.put(records)
        stage.until_done(records, worker)
        worker.until("a warning", lambda: "opentelemetry" in worker.log_path.read_text())
        assert worker.terminate(30) == 0
    stage.until_equal(simulation.expected)


def test_the_environment_is_refused_before_the_first_connection(names: Names, tmp_path: Path) -> None:
    stage = Stage("127.0.0.1:1", names, tmp_path, make=False)
    config = tmp_path / "c.toml"
    config.write_text('[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[tracing]\nenabled = true\n[http]\nport = 0\n')
    done = subprocess.run(
        [sys.executable, "-m", "processor", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318", "PATH": "/usr/bin"},
    )
    assert done.returncode == 78, done.stderr
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: expected an http or https address (got 'collector:4318" in done.stderr
    assert stage.bootstrap not in done.stderr
