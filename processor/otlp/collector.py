"""Send spans of published steps to a collector: OTLP over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from processor.errors import BrokerRefused, BrokerUnavailable
from processor.otlp.conventions import SCHEMA_URL
from processor.otlp.spans import Span
from processor.otlp.trace_context import link_to

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class Collector:
    """Sends spans, each batch until it is accepted or the time is over.

    Args:
        endpoint: where to POST, such as http://127.0.0.1:4318/v1/traces; None: as the environment says
            (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT; headers and certificates likewise).
        timeout_s: for one batch, repeats included.
    """

    def __init__(self, endpoint: str | None, *, service: str, timeout_s: float) -> None:
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        self._refusals = 0
        self._answer = ""
        session = requests.Session()
        session.hooks["response"].append(self._heard)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_s, session=session)
        self._endpoint = self._exporter._endpoint
        self._resource = Resource.create({SERVICE_NAME: service})
        self._scope = InstrumentationScope("run-steps", version("run-steps"), SCHEMA_URL)

    def send(self, spans: Sequence[Span]) -> int:
        """Send a batch; returns how many of it the collector has refused for good.

        Raises:
            BrokerUnavailable: no answer, or an answer that it cannot take them now, until the time was over.
            BrokerRefused: it does not take them.
        """
        self._refusals, self._answer = 0, ""
        result = self._exporter.export([self._readable(span) for span in spans])
        if result is SpanExportResult.SUCCESS:
            return self._refusals
        where = f"collector {self._endpoint}"
        if self._answer.startswith("4") and self._answer[:3] not in ("408", "429"):
            raise BrokerRefused(
                f"{where}: does not take the spans (got HTTP {self._answer})",
                hint="check the address (OTLP over HTTP, with its path /v1/traces) and OTEL_EXPORTER_OTLP_HEADERS",
            )
        raise BrokerUnavailable(
            f"{where}: did not take the spans in time (got {f'HTTP {self._answer}' if self._answer else 'no answer'})",
            hint="nothing is lost: the next export begins with them again",
        )

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _heard(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Note an answer: the exporter itself takes partial success for success."""
        self._answer = f"{response.status_code} {response.reason}".strip()
        if response.ok and response.content:
            try:
                told = ExportTraceServiceResponse.FromString(response.content)
            except DecodeError:  # a proxy's page, say: it was taken, and that is all we know
                return
            self._refusals = told.partial_success.rejected_spans

    def _readable(self, span: Span) -> ReadableSpan:
        trace_id = int.from_bytes(span.trace_id)

        def context(span_id: bytes) -> SpanContext:
            return SpanContext(trace_id, int.from_bytes(span_id), is_remote=False, trace_flags=_SAMPLED)

        status = Status(StatusCode.ERROR, span.error_text or None) if span.error_type else Status(StatusCode.UNSET)
        link = link_to(span.link)
        return ReadableSpan(
            name=span.name,
            context=context(span.span_id),
            parent=context(span.parent) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            links=[link] if link is not None else [],
            kind=SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=status,
            start_time=span.start_ns,
            end_time=span.end_ns,
        )
