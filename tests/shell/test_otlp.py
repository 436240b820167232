"""`run-steps export otlp` without a broker: which spans a published step becomes, and how they are sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import error_attributes as error_names
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.schemas import Schemas

from processor.archives import ArchivedRecord, Recorder
from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.core.headers import FIRST_OFFSET, LAST_OFFSET, REVISION, SOURCE_PARTITION, SOURCE_TOPIC
from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.otlp import conventions
from processor.otlp.collector import Collector
from processor.otlp.command import Exporter, Options, export_archives
from processor.otlp.spans import ExportedStep, Span, SpanOptions, exported, run_span_id, trace_id_of
from tests.otlp_receiver import Receiver, attributes

SECRET = "the secret of the garden"
PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def headers(revision: int = 0, **more: str) -> tuple[tuple[str, bytes], ...]:
    told = {SOURCE_TOPIC: "in", SOURCE_PARTITION: "3", FIRST_OFFSET: "7", LAST_OFFSET: "9", REVISION: str(revision)}
    return tuple((name, text.encode()) for name, text in (told | more).items())


def run_step(**changes: Any) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "water", "arguments": SECRET, "output": SECRET}}
    search = {"id": "call_2", "type": "file_search", "file_search": {"results": [{"text": SECRET}]}}
    return {
        "id": "step_1",
        "object": "thread.run.step",
        "run_id": "run_1",
        "thread_id": "thread_1",
        "assistant_id": "asst_1",
        "type": "tool_calls",
        "status": "completed",
        "created_at": 1_764_400_000,
        "completed_at": 1_764_400_002,
        "step_details": {"type": "tool_calls", "tool_calls": [call, search]},
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
        **changes,
    }


def spans_of(step: dict[str, Any], *, contents: bool = False, revision: int = 0, **more: str) -> ExportedStep:
    found = exported(
        json.dumps(step).encode(), headers(revision, **more), 1_764_400_009_000, SpanOptions(contents=contents)
    )
    assert found is not None
    return found


class Sink:
    """Keeps spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def send(self, spans: Any) -> int:
        self.spans += spans
        return 0


def test_the_names_are_those_of_the_conventions() -> None:
    """The pinned version is one that OpenTelemetry's own package knows, and so is every name."""
    assert conventions.SCHEMA_URL in {schema.value for schema in Schemas}
    modules = (gen_ai, messaging, error_names)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    operations = {each.value for each in gen_ai.GenAiOperationNameValues}
    types = {each.value for each in messaging.MessagingOperationTypeValues}
    assert messaging.MessagingSystemValues.KAFKA.value == conventions.KAFKA
    for name, value in vars(conventions).items():
        if isinstance(value, conventions.Operation):
            assert value.type in types
            continue
        if not name.isupper() or name.startswith("UNIT") or name in ("VERSION", "SCHEMA_URL", "OTHER_ERROR", "KAFKA"):
            continue
        assert value in (operations if name in ("INVOKE_AGENT", "EXECUTE_TOOL", "CHAT") else known), name


def test_a_tool_call_is_an_execute_tool_span() -> None:
    function, search = spans_of(run_step()).spans
    assert function.name == "execute_tool water"
    assert function.attributes[conventions.OPERATION] == "execute_tool"
    assert function.attributes[conventions.TOOL_TYPE] == "function"
    assert function.attributes[conventions.TOOL_CALL_ID] == "call_1"
    assert (search.name, search.attributes[conventions.TOOL_TYPE]) == ("execute_tool file_search", "datastore")
    assert (function.start_ns, function.end_ns) == (1_764_400_000_000_000_000, 1_764_400_002_000_000_000)
    assert function.attributes["run_steps.source.first_offset"] == 7
    assert function.trace_id == search.trace_id == trace_id_of("run_1")
    assert function.parent == search.parent == run_span_id("run_1")
    assert function.span_id != search.span_id


def test_a_message_is_a_chat_span() -> None:
    details = {"type": "message_creation", "message_creation": {"message_id": "msg_1"}}
    (span,) = spans_of(run_step(type="message_creation", step_details=details)).spans
    assert (span.name, span.attributes[conventions.OPERATION]) == ("chat", "chat")
    assert (span.attributes[conventions.INPUT_TOKENS], span.attributes[conventions.OUTPUT_TOKENS]) == (12, 5)


def test_an_item_of_a_response_is_a_span_of_its_kind() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_9", "name": "prune", "arguments": SECRET}
    step = run_step(
        id="resp_1:0", run_id="resp_1", usage=None, step_details={"type": "tool_calls", "tool_calls": [call]}
    )
    (span,) = spans_of(step).spans
    assert span.name == "execute_tool prune"
    assert span.attributes[conventions.TOOL_CALL_ID] == "call_9"
    said = {"message_id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": SECRET}]}
    message = run_step(type="message_creation", step_details={"type": "message_creation", "message_creation": said})
    (span,) = spans_of(message, contents=True).spans
    assert json.loads(str(span.attributes[conventions.OUTPUT_MESSAGES]))[0]["parts"] == [
        {"type": "text", "content": SECRET}
    ]
    (span,) = spans_of(run_step(type="reasoning", step_details={"type": "reasoning"})).spans
    assert span.name == "run_step reasoning"
    assert conventions.OPERATION not in span.attributes


def test_contents_are_exported_only_if_asked_for() -> None:
    failed = run_step(status="failed", failed_at=1_764_400_002, last_error={"code": "timeout", "message": SECRET})
    for span in spans_of(failed).spans:
        assert SECRET not in repr(span)
        assert span.error_type == "timeout"
    function, search = spans_of(failed, contents=True).spans
    assert function.attributes[conventions.TOOL_ARGUMENTS] == SECRET
    assert function.attributes[conventions.TOOL_RESULT] == SECRET
    assert SECRET in str(search.attributes[conventions.TOOL_RESULT])
    assert function.error_text == SECRET


def test_a_run_is_as_wide_as_its_steps_and_counts_a_step_once() -> None:
    sink = Sink()
    exporter = Exporter(sink, Options())
    later = run_step(id="step_2", created_at=1_764_400_003, completed_at=1_764_400_005)
    for offset, (step, revision) in enumerate(((run_step(), 0), (later, 0), (run_step(), 1))):
        value = json.dumps(step).encode()
        exporter.take("done", 0, LogRecord(offset, 1_764_400_009_000, b"k", value, headers(revision)))
    done = exporter.finish()
    assert (done.steps, done.runs, done.spans) == (3, 1, 7)
    run = sink.spans[-1]
    assert run.name == "invoke_agent"
    assert run.parent == b""
    assert (run.start_ns, run.end_ns) == (1_764_400_000_000_000_000, 1_764_400_005_000_000_000)
    assert run.attributes[conventions.INPUT_TOKENS] == 24
    assert run.attributes[conventions.AGENT_ID] == "asst_1"
    assert run.attributes[conventions.CONVERSATION_ID] == "thread_1"
    assert run.attributes["run_steps.run.steps"] == 2
    assert {span.trace_id for span in sink.spans} == {trace_id_of("run_1")}


def test_what_is_exported_again_has_the_same_ids() -> None:
    first, amended = spans_of(run_step()), spans_of(run_step(status="expired", expired_at=1_764_400_007), revision=1)
    assert [span.span_id for span in first.spans] == [span.span_id for span in amended.spans]
    other = spans_of(run_step(run_id="run_2"))
    assert not {span.span_id for span in first.spans} & {span.span_id for span in other.spans}


TIMES = st.none() | st.integers() | st.floats() | st.text() | st.booleans()
DETAILS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "tool_calls", "function", "name", "content", "id", "error", "arguments"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(TIMES, TIMES, DETAILS, DETAILS, DETAILS, st.sampled_from(["tool_calls", "message_creation", "x"]))
def test_any_step_becomes_spans_that_can_be_sent(
    created: Any, ended: Any, details: Any, error: Any, usage: Any, kind: str
) -> None:
    """Services put anything anywhere: ids have their lengths, times are in order and fit, attributes are plain."""
    step = run_step(created_at=created, completed_at=ended, step_details=details, last_error=error, usage=usage)
    value = json.dumps({**step, "type": kind}).encode()
    found = exported(value, headers(), 1_764_400_009_000, SpanOptions(contents=True))
    if found is None:
        return  # what msgspec does not read (NaN) is no published step
    assert found.spans
    for span in found.spans:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert 0 <= span.start_ns <= span.end_ns < 1 << 63
        assert all(type(each) in (str, int) for each in span.attributes.values())


@pytest.mark.parametrize("said", ["9" * 30, "9" * 5_000, "x", "", "-1", "\u0661"])
@pytest.mark.parametrize("timestamp_ms", [-(1 << 63), -1, (1 << 63) - 1])
def test_headers_and_times_of_others_are_no_end_of_the_export(said: str, timestamp_ms: int) -> None:
    """Anybody who may write there can write anything, and producers set any time."""
    step = run_step(created_at=None, completed_at=None, type="message_creation", usage={"prompt_tokens": (1 << 63) - 1})
    sink = Sink()
    exporter = Exporter(sink, Options())
    for offset in range(2):
        value = json.dumps({**step, "id": f"step_{offset}"}).encode()
        told = tuple((name, said.encode()) for name in (REVISION, FIRST_OFFSET, SOURCE_PARTITION, LAST_OFFSET))
        exporter.take("done", 0, LogRecord(offset, timestamp_ms, b"k", value, told))
    exporter.finish()
    assert len(sink.spans) == 3
    with Receiver() as receiver, Collector(receiver.endpoint, service="garden", timeout_s=5) as collector:
        assert collector.send(sink.spans) == 0
        assert len(receiver.spans()) == 3


def test_a_step_that_says_it_ends_in_the_future_keeps_no_position_back() -> None:
    """A service's clock, or a time in another unit: what counts is when the step was published."""
    exporter = Exporter(Sink(), Options())
    now_s = 1_764_400_000
    for offset, (run_id, ended_s, published_s) in enumerate(
        (("run_1", now_s + 10**9, now_s - 3_600), ("run_2", now_s - 10, now_s - 9), ("run_3", now_s - 900, now_s - 899))
    ):
        value = json.dumps(run_step(id=f"s{offset}", run_id=run_id, completed_at=ended_s)).encode()
        exporter.take("done", 0, LogRecord(offset, published_s * 1000, b"k", value, headers()))
    assert exporter.runs.unsettled(600.0, now_s * 10**9) == {("done", 0): 1}


def test_what_is_no_published_step_is_none() -> None:
    for value in (None, b"", b"[]", b"{}", b'{"id":1,"status":"completed"}', b"\xff"):
        assert exported(value, (), 0, SpanOptions()) is None


# --- sending ----------------------------------------------------------------------------------------------------------


def sent_to(receiver: Receiver, *steps: ExportedStep, timeout_s: float = 30.0) -> int:
    with Collector(receiver.endpoint, service="garden", timeout_s=timeout_s) as collector:
        return collector.send([span for step in steps for span in step.spans])


def test_a_collector_gets_the_spans_as_they_are() -> None:
    with Receiver() as receiver:
        assert sent_to(receiver, spans_of(run_step(), traceparent=PRODUCER)) == 0
    (resource,) = receiver.requests[0].resource_spans
    assert attributes(resource.resource)["service.name"] == "garden"
    (scope,) = resource.scope_spans
    assert scope.scope.name == "run-steps"
    assert scope.schema_url == conventions.SCHEMA_URL
    function, _ = receiver.spans()
    told = spans_of(run_step()).spans[0]
    assert (function.trace_id, function.span_id, function.parent_span_id) == (told.trace_id, told.span_id, told.parent)
    assert (function.start_time_unix_nano, function.end_time_unix_nano) == (told.start_ns, told.end_ns)
    assert attributes(function) == told.attributes
    assert function.links[0].trace_id.hex() == PRODUCER.split("-")[1]
    assert not any(SECRET.encode() in body for body in receiver.bodies)


def test_a_trace_context_that_is_none_is_no_link() -> None:
    with Receiver() as receiver:
        for wrong in ("", "x", "00-zz-yy-01", f"00-{'0' * 32}-{'0' * 16}-01", PRODUCER + "-more"):
            sent_to(receiver, spans_of(run_step(), traceparent=wrong))
    assert not any(span.links for span in receiver.spans())


def test_a_collector_that_is_busy_is_asked_again() -> None:
    with Receiver() as receiver:
        receiver.answers = [503, 429]
        assert sent_to(receiver, spans_of(run_step())) == 0
        assert len(receiver.spans()) == 2


def test_a_collector_that_does_not_answer_in_time_is_unavailable() -> None:
    with Receiver() as receiver:
        receiver.answers = [503] * 100
        with pytest.raises(BrokerUnavailable, match="did not take the spans in time"):
            sent_to(receiver, spans_of(run_step()), timeout_s=1.0)


def test_a_collector_that_refuses_is_told() -> None:
    with Receiver() as receiver:
        receiver.answers = [401]
        with pytest.raises(BrokerRefused, match="got HTTP 401"):
            sent_to(receiver, spans_of(run_step()))


def test_spans_that_a_collector_rejects_are_counted() -> None:
    with Receiver() as receiver:
        receiver.rejects = 2
        assert sent_to(receiver, spans_of(run_step())) == 2


# --- archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_of_what_was_published_is_exported(tmp_path: Path) -> None:
    settings = Settings()
    value = json.dumps(run_step()).encode()
    with Recorder(tmp_path / "archive") as recorder:
        recorder.write(ArchivedRecord(settings.output.completed, 0, 0, 1, b"step_1", value, headers()))
    sink = Sink()
    done = export_archives(settings, [tmp_path / "archive"], sink, Options())
    assert (done.steps, done.runs, done.spans) == (1, 1, 3)
    with pytest.raises(UsageError, match="no record of an outcome topic"):
        export_archives(
            Settings.model_validate({"output": {"completed": "other"}}), [tmp_path / "archive"], sink, Options()
        )
