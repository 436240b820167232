"""Run templates: whatever they read, `events.decode` reads as the same event, in every envelope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import LogRecord
from processor.core.events import decode
from processor.core.learned_bytes import MOST_BYTES, MOST_OF_ONE, LearnedBytes
from processor.core.named_events import RUN_NAMES
from processor.core.run_steps import object_shape, run_template, usual_events
from processor.core.run_steps.run_template import RunTemplates, named_run
from processor.core.wire_types import Decoded, Ignored, RunEnd
from tests.core.scripted_log import Play, call, calls, text
from tests.core.test_events import envelopes
from tests.core.test_paths import come_to_the_same

NULLS = dict.fromkeys(("failed_at", "cancelled_at", "completed_at", "last_error", "usage"))


@pytest.fixture(autouse=True)
def _learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_template, "_IS_COMPILED", True)


def run(run_id: str = "run_1", status: str = "queued", at: int = 1_720_000_000, **fields: Any) -> dict[str, Any]:
    said = {"id": run_id, "object": "thread.run", "created_at": at, "assistant_id": "asst_1", "thread_id": "thread_1"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    return said | {"status": status} | NULLS | {"instructions": 'Be \u00e9 "brief".', "tools": tools} | fields


def decoded(name: str, data: bytes, form: str) -> RunEnd | Ignored | None:
    """What the general way reads. `form`: the envelope."""
    shown = {
        "named": b'{"event":"thread.run.%b","data":%b}' % (name.encode(), data),
        "spaced": b'{"event": "thread.run.%b", "data": %b}' % (name.encode(), data),
        "sse": b"event: thread.run.%b\ndata: %b\n\n" % (name.encode(), data),
        "bare": data,
    }
    found = decode(shown[form])
    return found.events[0] if isinstance(found, Decoded) else None  # type: ignore[return-value]


def learned(name: str, data: bytes) -> RunTemplates:
    templates = RunTemplates(LearnedBytes())
    found = decoded(name, data, "named" if name else "bare")
    assert isinstance(found, RunEnd | Ignored)
    templates.learn(name, data, found)
    return templates


FORMS = {"named", "spaced", "sse"}
LEARNED = {
    "queued": ("queued", run()),
    "completed": ("completed", run(status="completed", completed_at=1_720_000_009, usage={"total_tokens": 7})),
    "failed without a time": ("failed", run(status="failed")),
    "another end than its name": ("completed", run(status="cancelled", cancelled_at=1_720_000_009)),
    "no status": ("expired", {k: v for k, v in run().items() if k != "status"}),
    "bare": ("", run(status="completed", completed_at=1_720_000_009)),
    "bare, at work": ("", run(status="in_progress")),
}


@pytest.mark.parametrize("case", LEARNED)
def test_what_a_template_reads_of_another_run_is_what_is_decoded(case: str) -> None:
    name, data = LEARNED[case]
    templates = learned(name, text(data))
    for run_id in ("run_2", "r", "a longer id, with spaces", "x" * 256):
        for at in (1, 999_999_999_999_999):
            times = {k: at for k, v in data.items() if k.endswith("_at") and v is not None}
            other = text(data | {"id": run_id, "thread_id": "t"} | times)
            found = templates.read(name, other)
            assert found is not None
            for form in FORMS if name else {"bare"}:
                assert found == decoded(name, other, form)


@pytest.mark.parametrize("case", LEARNED)
def test_with_any_other_byte_it_is_read_as_it_is_decoded_or_not_at_all(case: str) -> None:
    name, data = LEARNED[case]
    whole = text(data)
    templates, read = learned(name, whole), 0
    for at in range(len(whole)):
        spoiled = [whole[:at] + whole[at + 1 :], whole[:at] + b'"' + whole[at:], whole[:at]]
        spoiled += [whole[:at] + bytes([other]) + whole[at + 1 :] for other in b'\0\x1f "0917\\,:{}[]\x7f\x80\xffaz']
        for value in spoiled:
            found = templates.read(name, value)
            if found is not None:
                read += 1
                for form in FORMS - {"sse"} if b"\n" in value else FORMS if name else {"bare"}:
                    assert found == decoded(name, value, form), value
    assert read > 100


NOT_LEARNED = {
    "an error": ("failed", text(run(status="failed", last_error={"code": "c", "message": "m"}))),
    "an id twice": ("queued", text(run()).replace(b'"object"', b'"id":"run_0","object"', 1)),
    "an id with an escape": ("completed", text(run(status="completed")).replace(b"run_1", b"run\\u005f1")),
    "nested deep": ("queued", text(run(metadata={"x": 0})).replace(b'{"x":0}', b"[" * 101 + b"]" * 101)),
    "half a character": ("queued", text(run()).replace(b"brief", b"\\ud800")),
    "too large": ("queued", text(run(instructions="x" * MOST_OF_ONE))),
}


@pytest.mark.parametrize("case", NOT_LEARNED)
def test_what_may_say_something_else_in_another_envelope_is_no_template(case: str) -> None:
    name, data = NOT_LEARNED[case]
    templates = RunTemplates(LearnedBytes())
    found = decoded(name, data, "sse")
    templates.learn(name, data, found if isinstance(found, Ignored | RunEnd) else Ignored("ignored"))
    assert templates.read(name, data) is None
    assert not templates._by_name


def test_an_end_without_an_id_is_decoded() -> None:
    data = text(run(status="completed"))
    assert learned("completed", data).read("completed", data.replace(b"run_1", b"")) is None
    assert learned("completed", data).read("completed", data.replace(b"run_1", b"r" * 257)) is None
    assert learned("queued", data.replace(b"completed", b"queued")).read("queued", data) is None


def test_the_template_that_did_not_match_for_longest_is_forgotten() -> None:
    templates = RunTemplates(LearnedBytes())
    assistants = [text(run(instructions=f"{n}")) for n in range(5)]
    for data in assistants[:4]:
        templates.learn("queued", data, Ignored("ignored"))
    assert templates.read("queued", assistants[0]) is not None
    templates.learn("queued", assistants[4], Ignored("ignored"))
    assert [templates.read("queued", data) is not None for data in assistants] == [True, False, True, True, True]
    assert templates.read("created", assistants[0]) is None


def test_no_more_is_learned_than_there_are_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_shape, "_IS_COMPILED", True)  # else a template takes twenty times the memory
    templates = RunTemplates(LearnedBytes())
    small = {"id": "r", "object": "thread.run", "status": "queued"}
    for number in range(300):
        templates.learn("queued", text(small | {"model": f"{number}"}), Ignored("ignored"))
    assert templates.read("queued", text(small | {"model": "255"})) is not None
    assert templates.read("queued", text(small | {"model": "299"})) is None


def test_runs_leave_most_of_what_may_be_learned_to_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_shape, "_IS_COMPILED", True)
    left = LearnedBytes()
    templates = RunTemplates(left)
    for number in range(100):
        templates.learn("queued", text(run(instructions="x" * 10_000 + f"{number}")), Ignored("ignored"))
    assert MOST_BYTES - 128 * 1024 <= left.left < MOST_BYTES - 100_000


@pytest.mark.skipif(not run_template.__file__.endswith(".py"), reason="the core is compiled")
def test_in_python_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_template, "_IS_COMPILED", False)
    assert learned("queued", text(run())).read("queued", text(run())) is None


@pytest.mark.parametrize("name", sorted(RUN_NAMES))
def test_the_name_of_a_run_stands_in_front_of_its_data(name: str) -> None:
    data = text(run())
    for value in (
        b'{"event":"thread.run.%b","data":%b}' % (name.encode(), data),
        b'{"event": "thread.run.%b", "data": %b}' % (name.encode(), data),
    ):
        assert named_run(value) == (name, data)
        assert named_run(value + b" ") is None
        assert named_run(value.replace(b'"data"', b'"date"')) is None
        assert named_run(value.replace(name.encode(), name.encode() + b"s", 1)) is None
        assert named_run(value.replace(b"thread.run.", b"thread.run.step.", 1)) is None
    assert named_run(b'{"event":"thread.run.%b", "data":%b}' % (name.encode(), data)) is None


@pytest.mark.parametrize("form", ["E1", "E3", "E3 in base64", "E4", "E5"])
def test_the_events_of_the_next_run_are_not_decoded(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    play = Play()

    def live(run_id: str) -> None:
        for name in ("created", "queued", "in_progress", "completed"):
            said = run(run_id, name, completed_at=1_720_000_000 if name == "completed" else None)
            value, headers = envelopes(f"thread.run.{name}", said)[form]
            play.state.apply([LogRecord(play.state.next_offset, 1_000, b"k", value, tuple(headers))])

    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    live("run_1")
    monkeypatch.setattr(usual_events, "run_of", refuse)
    monkeypatch.setattr("processor.core.named_events.run_of", refuse)
    live("run_2")
    assert play.state.counts["run_end"] == 2
    assert play.state.counts["ignored"] == 6


RUNS = st.builds(
    run,
    st.sampled_from(["r1", "r2", "r\u00e9"]),
    st.sampled_from(["queued", "in_progress", "completed", "failed", "cancelled", "expired", "odd", "incomplete"]),
    st.sampled_from([1_720_000_000, 5]),
    completed_at=st.sampled_from([None, 1_720_000_001, 0, "x", 10**15]),
    last_error=st.sampled_from([None, {"code": "c"}]),
    instructions=st.sampled_from(["a", "b"]),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", *sorted(RUN_NAMES)]),
            RUNS,
            st.integers(0, 6),
            st.sampled_from([b"", b" ", b"\xff", b'"']),
        ),
        max_size=25,
    )
)
def test_both_paths_come_to_the_same(said: list[tuple[str, dict[str, Any], int, bytes]]) -> None:
    """Runs that end steps, in every envelope, some of them spoiled."""
    records: list[LogRecord] = []
    for number, (name, data, form, spoiled) in enumerate(said):
        if number % 5 == 0:
            opened = calls(call(0, "a", id="c", function={"name": "f"}), step_id=f"s{number}")
            value = b'{"event":"thread.run.step.delta","data":%b}' % text(opened)
            records.append(LogRecord(len(records), 1_000, b"r1", value))
        shown = list(envelopes(f"thread.run.{name}", data).values()) if name else [(text(data), ())]
        value, headers = shown[form % len(shown)]
        records.append(LogRecord(len(records), 1_000, b"r1", value + spoiled, tuple(headers)))
    come_to_the_same(records)
