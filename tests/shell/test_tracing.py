"""Spans of a worker's units without a broker: what is sent, what it costs where it is off, and what holds it up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any

import pytest

from processor.config.settings import Settings, Tracing
from processor.core.effects import LogRecord, Record
from processor.errors import BrokerUnavailable, ConfigError
from processor.otlp.unit_tracer import UnitTracer
from processor.serve import tracing
from processor.serve.tracing import build_tracer, require_extra
from tests.otlp_receiver import Receiver, attributes

PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CLIENT, CONSUMER, ERROR = 3, 5, 2
"""Numbers of OTLP: kinds of spans, and a status."""


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """An exporter that gives up after a test would draw from `random` within the next one."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive(), f"{thread.name} goes on"


def records(n: int, *headers: str) -> list[Record]:
    said = tuple(("traceparent", header.encode()) for header in headers)
    return [LogRecord(offset, 1_764_400_000_000, None, b"{}", said) for offset in range(n)]


def traced(trace: Callable[[UnitTracer], object], share: float = 1.0) -> Receiver:
    with Receiver() as receiver:
        tracer = UnitTracer(receiver.endpoint, share, service="run-steps", instance="me.1", topic="in", group="g")
        trace(tracer)
        tracer.close()
    return receiver


def by_name(receiver: Receiver) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for span in receiver.spans():
        found.setdefault(span.name, []).append(span)
    return found


def test_a_unit_is_a_trace_of_poll_process_and_commit() -> None:
    now = time.monotonic()

    def unit(tracer: UnitTracer) -> None:
        trace = tracer.turn(None, now, now + 1, now + 2, {3: records(5)})
        assert tracer.turn(trace, now + 2, now + 3, now + 4, {3: records(1), 4: records(2)}) is trace
        tracer.committed(trace, now + 4, now + 6, 8, {3: ..., 4: ...}, None)

    receiver = traced(unit)
    found = by_name(receiver)
    (root,), (commit,) = found["unit"], found["commit in"]
    assert {name: len(spans) for name, spans in found.items()} == {
        "unit": 1,
        "poll in": 2,
        "process in": 2,
        "commit in": 1,
    }
    assert {span.trace_id for span in receiver.spans()} == {root.trace_id}
    assert {span.parent_span_id for span in receiver.spans()} == {b"", root.span_id}
    assert {span.kind for span in (*found["poll in"], commit)} == {CLIENT}
    assert {span.kind for span in found["process in"]} == {CONSUMER}
    second = 1_000_000_000
    whole = [(span.end_time_unix_nano - span.start_time_unix_nano) / second for span in (root, commit)]
    assert whole == pytest.approx([6, 2], abs=0.05)
    assert abs(root.start_time_unix_nano - time.time_ns()) < 60 * second
    told = attributes(found["process in"][0])
    assert told == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "in",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "g",
        "messaging.client.id": "me.1",
        "messaging.batch.message_count": 5,
    }
    assert "messaging.destination.partition.id" not in attributes(found["process in"][1]), "of two partitions"
    assert attributes(commit)["messaging.operation.type"] == "settle"
    said = attributes(root)
    assert (said["run_steps.unit.records"], said["run_steps.unit.polls"], said["run_steps.unit.partitions"]) == (
        8,
        2,
        2,
    )
    (resource,) = {
        (each.key, each.value.string_value)
        for each in receiver.requests[0].resource_spans[0].resource.attributes
        if each.key == "service.name"
    }
    assert resource == ("service.name", "run-steps")


def test_the_fold_links_to_the_producers_spans_each_once() -> None:
    now = time.monotonic()
    other = PRODUCER.replace("b7ad", "b7ae")
    batch = {0: [*records(3, PRODUCER), *records(1, "no traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01")]}
    batch[1] = records(200, other)
    receiver = traced(lambda tracer: tracer.turn(None, now, now, now, batch))
    (process,) = by_name(receiver)["process in"]
    assert [link.span_id.hex() for link in process.links] == ["b7ad6b7169203331", "b7ae6b7169203331"]
    assert {link.trace_id.hex() for link in process.links} == {"0af7651916cd43dd8448eb211c80319c"}
    (poll,) = by_name(receiver)["poll in"]
    assert not poll.links


def test_a_commit_that_fails_says_the_class_of_its_error_and_no_more() -> None:
    now = time.monotonic()
    error = BrokerUnavailable("delivery: the secret of the garden", hint="")
    receiver = traced(lambda tracer: tracer.committed(None, now, now, 0, {}, error))
    for span in receiver.spans():
        assert attributes(span)["error.type"] == "BrokerUnavailable"
        assert span.status.code == ERROR
    assert Counter(span.name for span in receiver.spans()) == Counter(["unit", "commit in"])
    assert not any(b"garden" in body for body in receiver.bodies)


def test_a_unit_of_many_polls_has_bounded_spans() -> None:
    now = time.monotonic()

    def unit(tracer: UnitTracer) -> None:
        trace = None
        for _ in range(500):
            trace = tracer.turn(trace, now, now, now, {0: records(1)})
        tracer.committed(trace, now, now, 500, {0: ...}, None)

    receiver = traced(unit)
    assert len(receiver.spans()) == 2 + 2 * 32
    assert attributes(by_name(receiver)["unit"][0])["run_steps.unit.polls"] == 500


def test_a_share_of_the_units_is_traced_and_whole() -> None:
    now = time.monotonic()

    def units(tracer: UnitTracer) -> None:
        for _ in range(400):
            tracer.committed(tracer.turn(None, now, now, now, {0: records(1)}), now, now, 1, {0: ...}, None)

    found = by_name(traced(units, share=0.25))
    assert 40 < len(found["unit"]) < 160
    assert {len(spans) for spans in found.values()} == {len(found["unit"])}


def test_a_collector_that_never_answers_holds_no_worker_up() -> None:
    """More spans than the queue takes are dropped, and the end does not wait for it."""
    now, over = time.monotonic(), Event()

    class Silent(BaseRequestHandler):
        def handle(self) -> None:
            over.wait(60)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        tracer = UnitTracer(endpoint, 1.0, service="s", instance="i", topic="in", group="g")
        for _ in range(3_000):
            tracer.committed(None, now, now, 1, {0: ...}, None)
        began = time.monotonic()
        tracer.close()
        assert time.monotonic() - began < 10
        over.set()  # the exporter has not given up yet
        for thread in threading.enumerate():
            if thread.name == "close tracer":
                thread.join(30)
        server.shutdown()


def test_the_environment_must_name_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    with pytest.raises(
        ConfigError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: expected an http or https address \(got 'coll"
    ):
        build_tracer(Settings(tracing=Tracing(enabled=True)), "me")


def test_without_the_extra_it_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_is_installed", lambda module: False)
    require_extra(Settings())
    with pytest.raises(
        ConfigError, match=r"tracing\.enabled: needs the extra `otlp`.*\n.*pip install 'run-steps\[otlp\]'"
    ):
        require_extra(Settings(tracing=Tracing(enabled=True)))


def test_off_it_imports_nothing() -> None:
    """A worker that is not traced runs without the extra, and without its memory."""
    assert build_tracer(Settings(), "me") is None
    code = (
        "import sys; from processor.serve.command import serve; from processor.serve.tracing import build_tracer; "
        "from processor.config.settings import Settings; assert build_tracer(Settings(), 'me') is None; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
