"""`run-steps top`: what it reads off /metrics and /healthz, and what it says of workers that do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from processor.cli.main import app
from processor.errors import BrokerUnavailable, UsageError
from processor.telemetry import metrics
from processor.telemetry.meter import Meter, merged
from processor.telemetry.worker_view import Rates, WorkerView, rates, view


def meter(applied: int = 100, partition: int = 3, state: str = "live") -> Meter:
    made = Meter()
    made.count(metrics.RECORDS_APPLIED, applied, partition=partition)
    made.set(metrics.LAG_RECORDS, 7, partition=partition, end="high_watermark")
    made.set(metrics.LAG_RECORDS, 5, partition=partition, end="last_stable")
    made.set(metrics.LAG_SECONDS, 1.5, partition=partition)
    made.set(metrics.OPEN_STEPS, 12, partition=partition)
    made.set(metrics.COMMITTED_OFFSET, 1234, partition=partition)
    made.count(metrics.STEPS_PUBLISHED, applied // 10, status="completed", inferred="no")
    made.set(metrics.WORKER_STATE, 1, state=state)
    return made


def seen(made: Meter, at_s: float = 10.0) -> WorkerView:
    return view("http://w1:8080", at_s, made.exposition().decode())


def test_a_view_holds_the_partitions_that_the_worker_owns() -> None:
    made = meter()
    made.count(metrics.RECORDS_APPLIED, 50, partition=8)  # owned once: its gauges are gone
    worker = seen(made)
    assert list(worker.partitions) == [3]
    partition = worker.partitions[3]
    assert (partition.lag_records, partition.lag_s, partition.open_steps, partition.committed) == (7, 1.5, 12, 1234)
    assert worker.states == ("live",)
    assert worker.published == 10


def test_rates_are_per_second_and_unknown_after_a_restart() -> None:
    before, now = seen(meter(100), 10.0), seen(meter(300), 12.0)
    assert rates(before, now) == Rates({3: 100.0}, 10.0, 0.0)
    assert rates(None, now) == Rates({3: None}, None, None)
    assert rates(now, seen(meter(100), 14.0)).applied == {3: None}, "a counter that began anew"
    assert rates(before, seen(meter(300, partition=4), 12.0)).applied == {4: None}, "a partition that came"


def test_processes_behind_one_address_are_one_view() -> None:
    """`serve --workers 2`: each series has the process in a label."""
    both = merged({"0": meter(partition=0).exposition(), "1": meter(partition=1, state="restoring").exposition()})
    worker = view("http://w1:8080", 1.0, both.decode())
    assert list(worker.partitions) == [0, 1]
    assert sorted(worker.states) == ["live", "restoring"]
    assert worker.published == 20


@contextmanager
def answering(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_once_prints_a_table_that_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with answering({"/metrics": (200, meter().exposition()), "/healthz": (200, b"ok")}) as address:
        done = CliRunner().invoke(app, ["top", address, "--once", "--every", "0.5"])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert "live" in done.output
    (row,) = [line.split() for line in done.output.splitlines() if line.split()[:1] == ["3"]]
    assert row == ["3", "1", "7", "1.5", "0", "12", "-", "1,234"]


def test_what_healthz_complains_of_is_printed_clean_and_ends_with_1() -> None:
    reason = b"partition 3: stands still \x1b[31m[bold]"
    with answering({"/metrics": (200, meter().exposition()), "/healthz": (503, reason)}) as address:
        done = CliRunner().invoke(app, ["top", address, "--once", "--every", "0.5"])
    assert done.exit_code == 1
    assert "partition 3: stands still \ufffd[31m[bold]" in done.output
    assert "\x1b[31m" not in done.output


@pytest.mark.parametrize("answers", [None, {"/metrics": (200, b"<html>"), "/healthz": (200, b"ok")}])
def test_a_worker_that_does_not_answer_is_said_to_be_unreachable(
    answers: dict[str, tuple[int, bytes]] | None,
) -> None:
    with answering(answers or {}) as address:
        asked = address if answers else "127.0.0.1:1"
        done = CliRunner().invoke(app, ["top", asked, "--once", "--every", "0.5"])
    assert done.exit_code == 1
    assert "unreachable" in done.output


@pytest.mark.parametrize("command", [["top", "--once"], ["pause", "--reason", "x", "0"], ["resume", "0"]])
@pytest.mark.parametrize(
    "address",
    [
        "ftp://w1",
        "",
        "http://",
        "w1:x",
        "w1:99999",
        "w1:0",
        "http://[::1",
        "w1/ x",
        "w 1",
        "w\n1",
        "a@w1",
        "w1?x",
    ],
)
def test_an_address_that_is_none_is_refused(command: list[str], address: str) -> None:
    """A port that was no number was "a bug of ours" (70)."""
    done = CliRunner().invoke(app, [*command, address])
    assert isinstance(done.exception, UsageError), done.exception
    assert str(done.exception).startswith(f"ADDRESS: {address}: not the HTTP address of a worker")


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on this machine was looked for behind it, and called unreachable."""
    with answering({"/metrics": (200, meter().exposition()), "/healthz": (200, b"ok")}) as address:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setattr("urllib.request._opener", None)  # else it is of a time before that
        done = CliRunner().invoke(app, ["top", address, "--once", "--every", "0.5"])
    assert done.exit_code == 0, done.output


def test_what_speaks_another_protocol_is_said_to_be_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            for _ in range(3):
                accepted, _ = listening.accept()
                with accepted:
                    accepted.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
                    accepted.recv(1000)

        threading.Thread(target=greet, daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        done = CliRunner().invoke(app, ["top", address, "--once", "--every", "0.5"])
        assert done.exit_code == 1, done.output
        assert "unreachable" in done.output
        done = CliRunner().invoke(app, ["resume", "0", address])
        assert isinstance(done.exception, BrokerUnavailable), done.exception
