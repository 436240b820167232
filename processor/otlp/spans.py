"""Spans of published steps: ids, times and attributes, by the record alone. Pure.

A run is a trace. Its span is `invoke_agent`; below it every tool call is an `execute_tool` span, every message a `chat`
span, and any other step a span of its own. Ids are digests of the run's, the step's and the call's ids, so that a step
that is exported again has the same ones.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from processor.core import headers as evidence
from processor.core.effects import Headers, Status
from processor.otlp import conventions as names

STEP_ID: Final = "run_steps.step.id"
STEP_TYPE: Final = "run_steps.step.type"
STEP_STATUS: Final = "run_steps.step.status"
RUN_ID: Final = "run_steps.run.id"
EVIDENCE: Final = {
    evidence.REVISION: "run_steps.revision",
    evidence.VERSION: "run_steps.fold_version",
    evidence.DIGEST: "run_steps.digest",
    evidence.INFERRED: "run_steps.inferred",
    evidence.ANOMALIES: "run_steps.anomalies",
    evidence.SOURCE_TOPIC: "run_steps.source.topic",
    evidence.SOURCE_PARTITION: "run_steps.source.partition",
    evidence.FIRST_OFFSET: "run_steps.source.first_offset",
    evidence.LAST_OFFSET: "run_steps.source.last_offset",
}
"""Header of the published record -> attribute of each of its spans."""

_TRACEPARENT: Final = evidence.TRACE[0]
_TEXTS: Final = frozenset({evidence.DIGEST, evidence.INFERRED, evidence.ANOMALIES, evidence.SOURCE_TOPIC})
_DATASTORES: Final = frozenset(
    {"azure_ai_search", "bing_grounding", "file_search", "memory_search", "retrieval", "web_search"}
)
_ARGUMENTS: Final = ("arguments", "input", "code", "action", "operation", "queries")
_RESULTS: Final = ("output", "outputs", "result", "results")
_DIGITS: Final = 18
"""Maximum digits of a number in a header: an attribute has 63 bits."""
MAX_INTEGER: Final = (1 << 63) - 1

Attributes = dict[str, str | int]


class Span(msgspec.Struct, frozen=True, gc=False):
    """One span. Ids are bytes (16 of a trace, 8 of a span), times nanoseconds since 1970; `parent` b"": none.

    `error_type`: "" is no error. `link`: the W3C `traceparent` that the source record came with, "" if none.
    """

    trace_id: bytes
    span_id: bytes
    parent: bytes
    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    error_type: str = ""
    error_text: str = ""
    link: str = ""


class ExportedStep(msgspec.Struct, frozen=True, gc=False):
    """A published step as spans, and what its run's span is made of.

    `last_ns`: its end, but no later than its record, for services tell wrong times.
    """

    step_id: str
    run_id: str
    revision: int
    spans: list[Span]
    start_ns: int
    end_ns: int
    last_ns: int
    agent_id: str
    conversation_id: str
    input_tokens: int
    output_tokens: int
    error_type: str


class SpanOptions(msgspec.Struct, frozen=True):
    """`contents`: with arguments, results and messages, which may be private."""

    provider: str = "openai"
    contents: bool = False


def trace_id_of(run_id: str) -> bytes:
    return _digest("trace", run_id)[:16]


def run_span_id(run_id: str) -> bytes:
    return _digest("run", run_id)[:8]


def exported(value: bytes | None, headers: Headers, timestamp_ms: int, options: SpanOptions) -> ExportedStep | None:
    """The spans of a published record; None where its value is no published step."""
    try:
        step = msgspec.json.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(step, dict) or not _text(step.get("id")) or not _text(step.get("status")):
        return None
    return _Exporter(step, dict(headers), timestamp_ms, options).step()


class _Exporter:
    """One record on its way to spans."""

    def __init__(
        self, step: dict[str, Any], headers: dict[str, bytes | None], timestamp_ms: int, options: SpanOptions
    ) -> None:
        self._step, self._options = step, options
        self._id = _text(step["id"])
        self._run_id = _text(step.get("run_id")) or self._id
        self._type, self._status = _text(step.get("type")), _text(step["status"])
        recorded = min(max(0, timestamp_ms) * 1_000_000, MAX_INTEGER)
        end = _nanoseconds(step.get(f"{self._status}_at")) or recorded
        start = _nanoseconds(step.get("created_at")) or end
        self._start, self._end = min(start, end), end
        self._last = min(end, recorded or end)
        self._link = (headers.get(_TRACEPARENT) or b"").decode("ascii", "replace")
        self._evidence: Attributes = {
            STEP_ID: self._id,
            STEP_TYPE: self._type,
            STEP_STATUS: self._status,
            RUN_ID: self._run_id,
        }
        for header, attribute in EVIDENCE.items():
            said = headers.get(header)
            if said is not None:
                text = said.decode("utf-8", "replace")
                is_number = header not in _TEXTS and text.isascii() and text.isdecimal() and len(text) <= _DIGITS
                self._evidence[attribute] = int(text) if is_number else text

    def step(self) -> ExportedStep:
        step, usage = self._step, self._step.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return ExportedStep(
            self._id,
            self._run_id,
            revision if isinstance(revision := self._evidence.get(EVIDENCE[evidence.REVISION]), int) else 0,
            self._spans(),
            self._start,
            self._end,
            self._last,
            _text(step.get("assistant_id")),
            _text(step.get("thread_id")),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            self._error_type(step.get("last_error")),
        )

    def _spans(self) -> list[Span]:
        details = self._step.get("step_details")
        details = details if isinstance(details, dict) else {}
        if self._type == "tool_calls" and isinstance(calls := details.get("tool_calls"), list) and calls:
            return [self._call(index, call if isinstance(call, dict) else {}) for index, call in enumerate(calls)]
        if self._type == "message_creation":
            return [self._message(details.get("message_creation"))]
        return [self._span("step", f"run_step {self._type}".rstrip(), {})]

    def _call(self, index: int, call: dict[str, Any]) -> Span:
        kind = _text(call.get("type"))
        own = call.get(kind)
        own = own if isinstance(own, dict) else call
        bare = kind.removesuffix("_call")
        name = _text(own.get("name")) or _text(call.get("name")) or bare or "unknown"
        attributes: Attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: name,
            names.TOOL_TYPE: "function" if bare == "function" else "datastore" if bare in _DATASTORES else "extension",
        }
        if call_id := _text(call.get("call_id")) or _text(call.get("id")):
            attributes[names.TOOL_CALL_ID] = call_id
        if self._options.contents:
            for attribute, keys in ((names.TOOL_ARGUMENTS, _ARGUMENTS), (names.TOOL_RESULT, _RESULTS)):
                said = next((own[key] for key in keys if own.get(key) not in (None, "", [], {})), None)
                if said is not None:
                    attributes[attribute] = _json_text(said)
        error = self._error_type(call.get("error")) if call.get("error") else ""
        return self._span(f"call {index}", f"{names.EXECUTE_TOOL} {name}", attributes, error)

    def _message(self, message: Any) -> Span:
        attributes: Attributes = {names.OPERATION: names.CHAT, names.PROVIDER: self._options.provider}
        usage = self._step.get("usage")
        if isinstance(usage, dict):
            attributes[names.INPUT_TOKENS] = _count(usage.get("prompt_tokens"))
            attributes[names.OUTPUT_TOKENS] = _count(usage.get("completion_tokens"))
        if self._options.contents and isinstance(message, dict) and isinstance(message.get("content"), list):
            texts = [
                part.get("text") or part.get("refusal") or "" for part in message["content"] if isinstance(part, dict)
            ]
            parts = [{"type": "text", "content": text} for text in texts if isinstance(text, str)]
            said = [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
            attributes[names.OUTPUT_MESSAGES] = _json_text(said)
        return self._span("message", names.CHAT, attributes)

    def _span(self, part: str, name: str, attributes: Attributes, error_type: str = "") -> Span:
        error_type = error_type or self._error_type(self._step.get("last_error"))
        attributes = {**attributes, **self._evidence}
        if error_type:
            attributes[names.ERROR_TYPE] = error_type
        text = ""
        if error_type and self._options.contents and isinstance(error := self._step.get("last_error"), dict):
            text = _text(error.get("message"))
        return Span(
            trace_id_of(self._run_id),
            _digest("step", self._run_id, self._id, part)[:8],
            run_span_id(self._run_id),
            name,
            self._start,
            self._end,
            attributes,
            error_type,
            text,
            self._link,
        )

    def _error_type(self, error: Any) -> str:
        """The error's code; of a failed or expired step without one its status."""
        if isinstance(error, dict):
            code = error.get("code") or error.get("type")
            return str(code) if isinstance(code, str | int) else names.OTHER_ERROR
        return self._status if self._status in (Status.FAILED, Status.EXPIRED) else ""


def _digest(*parts: str) -> bytes:
    """SHA-256 over the parts, each with its length, so that no two lists give the same."""
    whole = sha256(b"run-steps")
    for part in parts:
        told = part.encode("utf-8", "replace")
        whole.update(b"%d:" % len(told))
        whole.update(told)
    return whole.digest()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else 0


def _nanoseconds(seconds: Any) -> int:
    """Nanoseconds of a time in seconds; 0 where there is none that a span could have."""
    if type(seconds) is int and 0 < seconds <= MAX_INTEGER // 1_000_000_000:
        return seconds * 1_000_000_000
    if type(seconds) is float and 0 < seconds <= MAX_INTEGER / 1e9:
        return round(seconds * 1000) * 1_000_000
    return 0


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
