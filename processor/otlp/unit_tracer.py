"""Trace the units of a worker: poll, process and commit as OpenTelemetry spans, sent by OTLP over HTTP.

Imported only where `tracing.enabled` is set. Spans wait in a bounded queue and are sent by a thread: a collector that
is slow or away costs spans, never records.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from os import environ
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, set_span_in_context

from processor.core.effects import Record
from processor.core.headers import TRACE
from processor.errors import ConfigError
from processor.otlp import conventions as names
from processor.otlp.trace_context import link_to

_MAX_TURNS: Final = 32
"""Turns of one unit that have spans; what more there is, is counted on the unit's span."""
_MAX_LINKS: Final = 32
_SEARCHED: Final = 256
"""Records of one turn whose headers are looked at for links."""
_SEND_S: Final = 5.0
_CLOSE_S: Final = 3.0

_TRACEPARENT: Final = TRACE[0]


class UnitTrace:
    """The trace of one unit while it is filled and committed. `root`: its span; the others are its children."""

    __slots__ = ("began", "context", "records", "root", "turns")

    def __init__(self, root: Span, began: float) -> None:
        self.root, self.began = root, began
        self.context = set_span_in_context(root)
        self.turns = self.records = 0


class UnitTracer:
    """Makes and sends the spans of one process.

    Args:
        endpoint: where to POST; "": as OTEL_EXPORTER_OTLP_* of the environment say.
        sample_share: share of the units that are traced.
        service, instance: `service.name`, unless OTEL_SERVICE_NAME is set, and `service.instance.id`.
        topic, group: the source topic and the consumer group.

    Raises:
        ConfigError: the address is no http or https address.
    """

    def __init__(
        self, endpoint: str, sample_share: float, *, service: str, instance: str, topic: str, group: str
    ) -> None:
        exporter = OTLPSpanExporter(endpoint=endpoint or None, timeout=_SEND_S)
        _check_address(exporter._endpoint)
        described = {SERVICE_NAME: environ.get(OTEL_SERVICE_NAME) or service, SERVICE_INSTANCE_ID: instance}
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(sample_share),
            resource=Resource.create(described),
            shutdown_on_exit=False,  # it would wait for a collector that is away, up to half a minute
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("run-steps", version("run-steps"), names.SCHEMA_URL)
        self._topic, self._instance = topic, instance
        self._common: dict[str, str | int] = {
            names.SYSTEM: names.KAFKA,
            names.DESTINATION: topic,
            names.CONSUMER_GROUP: group,
            names.CLIENT_ID: instance,
        }

    def turn(
        self,
        trace: UnitTrace | None,
        polled: float,
        returned: float,
        applied: float,
        batch: Mapping[int, Sequence[Record]],
    ) -> UnitTrace:
        """Trace a poll that returned records and their fold; times are seconds of the monotonic clock.

        Args:
            trace: of the unit that the records belong to; None: they are its first.
        """
        clock = _to_wall_clock()
        if trace is None:
            trace = self._begin(polled, clock)
        records = sum(map(len, batch.values()))
        trace.turns += 1
        trace.records += records
        if trace.turns > _MAX_TURNS or not trace.root.is_recording():
            return trace
        counted: dict[str, str | int] = {names.MESSAGE_COUNT: records}
        if len(batch) == 1:
            (partition,) = batch
            counted[names.PARTITION] = str(partition)
        links = _links(batch)
        self._span(trace, names.POLL, polled, returned, clock, counted)
        self._span(trace, names.PROCESS, returned, applied, clock, counted, links=links)
        return trace

    def committed(
        self,
        trace: UnitTrace | None,
        began: float,
        ended: float,
        records: int,
        offsets: Mapping[int, object],
        error: BaseException | None,
    ) -> None:
        """Trace a commit, and end the trace of its unit. `offsets`: of the partitions that it moves."""
        clock = _to_wall_clock()
        if trace is None:  # nothing was polled for it: checkpoints and clock marks alone
            trace = self._begin(began, clock)
        if not trace.root.is_recording():
            return
        counted: dict[str, str | int] = {names.MESSAGE_COUNT: records}
        if len(offsets) == 1:
            counted[names.PARTITION] = str(next(iter(offsets)))
        self._span(trace, names.COMMIT, began, ended, clock, counted, error)
        trace.root.set_attributes({names.UNIT_RECORDS: trace.records, names.UNIT_POLLS: trace.turns})
        trace.root.set_attribute(names.UNIT_PARTITIONS, len(offsets))
        _fail(trace.root, error)
        trace.root.end(clock(ended))

    def close(self) -> None:
        """Send what waits, for three seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="close tracer", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _begin(self, began: float, clock: _Clock) -> UnitTrace:
        attributes = {names.DESTINATION: self._topic, names.CLIENT_ID: self._instance}
        return UnitTrace(self._tracer.start_span(names.UNIT, attributes=attributes, start_time=clock(began)), began)

    def _span(
        self,
        trace: UnitTrace,
        operation: names.Operation,
        began: float,
        ended: float,
        clock: _Clock,
        counted: Mapping[str, str | int],
        error: BaseException | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        named = {names.OPERATION_NAME: operation.name, names.OPERATION_TYPE: operation.type}
        span = self._tracer.start_span(
            f"{operation.name} {self._topic}",
            trace.context,
            SpanKind.CONSUMER if operation is names.PROCESS else SpanKind.CLIENT,
            {**self._common, **named, **counted},
            links,
            start_time=clock(began),
        )
        _fail(span, error)
        span.end(clock(ended))


class _Clock:
    """Nanoseconds since 1970 of a time of the monotonic clock."""

    __slots__ = ("_ahead",)

    def __init__(self, ahead_ns: int) -> None:
        self._ahead = ahead_ns

    def __call__(self, seconds: float) -> int:
        return self._ahead + int(seconds * 1e9)


def _to_wall_clock() -> _Clock:
    """Made anew for each use: the wall clock is adjusted, and the two drift apart."""
    return _Clock(time.time_ns() - time.monotonic_ns())


def _fail(span: Span, error: BaseException | None) -> None:
    """Mark a span as failed; its error's class is all that is told, as messages may name what is private."""
    if error is not None:
        span.set_attribute(names.ERROR_TYPE, type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))


def _links(batch: Mapping[int, Sequence[Record]]) -> list[Link]:
    """Links to the producers' spans of the first records, each once."""
    found: dict[bytes, Link] = {}
    searched = 0
    for records in batch.values():
        for record in islice(records, _SEARCHED - searched):
            for name, value in record.headers:
                if name == _TRACEPARENT and value is not None and value not in found:
                    link = link_to(value.decode("ascii", "replace"))
                    if link is not None:
                        found[value] = link
            if len(found) >= _MAX_LINKS:
                return list(found.values())
        searched += len(records)
        if searched >= _SEARCHED:
            break
    return list(found.values())


def _check_address(address: str) -> None:
    told = urlsplit(address)
    if told.scheme not in ("http", "https") or not told.hostname:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: expected an http or https address (got {address!r:.200})",
            hint="for example http://127.0.0.1:4318; or set tracing.endpoint",
        )
