"""A receiver of OTLP over HTTP: it decodes what arrives with OpenTelemetry's own classes, and answers as it is told."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Receiver:
    """Listens on 127.0.0.1.

    Attributes:
        requests: what was taken (answered with 200), in order.
        answers: statuses of the next answers; then 200. Nothing is kept of what is not answered with 200.
        rejects: how many spans of each request a partial success names as rejected.
    """

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.bodies: list[bytes] = []
        self.answers: list[int] = []
        self.rejects = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, told = receiver._take(self.path, self.headers.get("Content-Type", ""), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def _take(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            if path != "/v1/traces" or kind != "application/x-protobuf":
                return 404, b""
            if self.answers and (status := self.answers.pop(0)) != 200:
                return status, b""
            self.requests.append(ExportTraceServiceRequest.FromString(body))
            self.bodies.append(body)
            answer = ExportTraceServiceResponse()
            if self.rejects:
                answer.partial_success.rejected_spans = self.rejects
            return 200, answer.SerializeToString()

    def spans(self) -> list[Any]:
        """All spans that were taken, in order."""
        with self._lock:
            return [
                span
                for request in self.requests
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()


def attributes(span: Any) -> dict[str, str | int]:
    """Its attributes, of which only text and whole numbers are exported."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }
