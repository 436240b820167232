"""Reconcile: the service's lists against what was published; honest differences accuse nobody, real ones are named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from processor.archives import ArchivedRecord, Gap, GapKind
from processor.archives.jsonl import encode_line
from processor.audit.expected_records import ExpectedRecords
from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile.command import Reconciled
from processor.audit.reconcile.command import reconcile as run
from processor.audit.reconcile.published_steps import PublishedSteps
from processor.audit.reconcile.service_lists import ListError, read_lists
from processor.audit.report.manifest import Outcome
from processor.cli import main as cli
from processor.config.settings import Settings
from processor.core.effects import Effect, LogRecord
from processor.core.partition import PartitionState
from processor.errors import UsageError
from processor.kafka.output_records import Outputs
from tests.core.scripted_log import text
from tests.shell.empty_reader import EmptyReader

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "run_steps_list.json"
T0_S = 1_761_861_610
SETTINGS = Settings()


def listed(step_id: str, status: str = "completed", run_id: str = "run_1", **fields: Any) -> dict[str, Any]:
    """A step as the service lists it."""
    ends = {f"{end}_at": None for end in ("completed", "failed", "cancelled")}
    return {
        "id": step_id, "object": "thread.run.step", "created_at": T0_S, "assistant_id": "asst_1",
        "thread_id": "thread_1", "run_id": run_id, "type": "tool_calls", "status": status,
        "step_details": {"type": "tool_calls", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}", "output": "42"}}]},
        "last_error": None, "expires_at": None, "usage": {"total_tokens": 7},
        **ends, **({f"{status}_at": T0_S + 10} if status != "in_progress" else {}), **fields,
    }  # fmt: skip


def as_event(step: dict[str, Any], name: str = "") -> bytes:
    return text({"event": f"thread.run.step.{name or step['status']}", "data": step})


class Published:
    """An archive of the output topics, made of source events by the fold."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "published.jsonl"
        self._state = PartitionState(SETTINGS.source.topic, 0, SETTINGS.rules())
        self._records = ExpectedRecords(Outputs.of_settings(SETTINGS), 0, {})
        self._ends: dict[str, int] = {}
        self._lines: list[bytes] = []

    def event(self, value: bytes | None, at_s: int = T0_S) -> None:
        record = LogRecord(self._state.next_offset, at_s * 1000, b"run_1", value, ())
        for effect in self._state.apply([record]):
            self._put(effect)

    def _put(self, effect: Effect) -> None:
        placed = self._records.whole(effect)
        if placed is not None:
            self.record(placed.topic, placed.timestamp, placed.key, placed.value, tuple(placed.headers))

    def record(
        self,
        topic: str,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Any,
        offset: int | None = None,
    ) -> None:
        offset = self._ends.get(topic, 0) if offset is None else offset
        self._ends[topic] = offset + 1
        self._lines.append(encode_line(ArchivedRecord(topic, 0, offset, timestamp, key, value, headers)))

    def write(self) -> Path:
        """Ends with a step of another run, an hour later: what is not here was not published in time."""
        self.event(as_event(listed("step_late", run_id="run_late", completed_at=T0_S + 3_600)), T0_S + 3_600)
        self.path.write_bytes(b"".join(self._lines))
        return self.path


def reconciled(tmp_path: Path, published: Published, lists: Any, **options: Any) -> Reconciled:
    file = tmp_path / "lists.json"
    file.write_text(json.dumps(lists))
    archive = published.write() if not published.path.exists() else published.path
    return run([file], SETTINGS, lambda: pytest.fail("no broker is asked"), published=[archive], **options)


def page(*steps: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(steps), "has_more": has_more}


def one_of(found: Reconciled, step_id: str) -> Any:
    return next(one for one in found.steps if one.step_id == step_id)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


# --- what is equal --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FIXTURE.exists(), reason="recordings: ../shared/fixtures is not there")
def test_a_recorded_page_agrees_with_what_its_steps_are_published_as(tmp_path: Path, published: Published) -> None:
    recorded = json.loads(FIXTURE.read_text("utf-8"))
    for step in recorded["data"]:
        published.event(as_event({**step, "status": "in_progress", "completed_at": None, "usage": None}, "created"))
        published.event(as_event(step), T0_S + 20)
    found = reconciled(tmp_path, published, recorded)
    assert (found.verdict, found.counts) == (Outcome.PROVEN, {"equal": 12, "open": 0})


def test_what_the_list_does_not_say_is_no_contradiction(tmp_path: Path, published: Published) -> None:
    """The stream has `expires_at`, the list has null; the list has usage, the stream had none yet."""
    published.event(as_event(listed("s1", expires_at=T0_S + 600, usage=None)))
    found = reconciled(tmp_path, published, page(listed("s1", metadata={}, object="assistant.run.step")))
    assert found.verdict is Outcome.PROVEN
    assert (found.not_in_lists, found.only_in_lists) == ({"expires_at": 1}, {"usage": 1})


@pytest.mark.parametrize("form", ["page", "pages", "array", "lines", "lines of pages", "one step", "folder"])
def test_lists_come_in_several_forms(tmp_path: Path, form: str) -> None:
    first, second = listed("s1"), listed("s2")
    file = tmp_path / "f.json"
    match form:
        case "page":
            file.write_text(json.dumps(page(first, second)))
        case "pages":
            file.write_text(json.dumps([page(first, has_more=True), page(second)]))
        case "array":
            file.write_text(json.dumps([first, second]))
        case "lines":
            file.write_text("\ufeff" + json.dumps(first) + "\n\n" + json.dumps(second) + "\n")
        case "lines of pages":
            file.write_text(json.dumps(page(first, has_more=True)) + "\n" + json.dumps(page(second)) + "\n")
        case "one step":
            file.write_text(json.dumps(first, indent=2))
        case "folder":
            (tmp_path / "f").mkdir()
            (tmp_path / "f" / "a.json").write_text(json.dumps(page(first, has_more=True)))
            (tmp_path / "f" / "b.jsonl").write_text(json.dumps(second))
            file = tmp_path / "f"
    lists = read_lists([file])
    assert list(lists.steps) == (["s1"] if form == "one step" else ["s1", "s2"])
    assert lists.runs == {"run_1": True}


NO_LISTS = (
    b"", b"{", b"7", b'{"object": "thread.message"}', b"\xff", b"[" * 100_000, b'{"data": [7]}',
    b'{"object": "thread.run.step"}',
)  # fmt: skip


@pytest.mark.parametrize("content", NO_LISTS)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises((ListError, UsageError)) as refused:
        run([tmp_path / "f.json"], SETTINGS, lambda: pytest.fail("no broker is asked"), published=[tmp_path])
    assert "reconcile: " in str(refused.value)


# --- what is not ----------------------------------------------------------------------------------------------------


def test_a_field_that_differs_is_named(tmp_path: Path, published: Published) -> None:
    """A delta was lost: the published step has less."""
    partial = listed("s1")
    partial["step_details"]["tool_calls"][0]["function"].update(arguments="{", output=None)
    published.event(as_event(partial))
    found = reconciled(tmp_path, published, page(listed("s1")))
    assert found.verdict is Outcome.DIFFERENT
    assert [(d.path, d.expected, d.got) for d in one_of(found, "s1").differences] == [
        ("step_details.tool_calls[0].function.arguments", "{}", "{"),
        ("step_details.tool_calls[0].function.output", "42", "null"),
    ]


def test_an_end_that_was_inferred_is_named_as_the_cause(tmp_path: Path, published: Published) -> None:
    """The service completed it and the stream never said so: expired by us."""
    published.event(as_event(listed("s1", "in_progress", expires_at=T0_S + 60), "created"))
    published.event(None, T0_S + 3_600)
    found = reconciled(tmp_path, published, page(listed("s1")))
    (one,) = found.steps
    assert (one.verdict, one.listed, one.published) == (Verdict.DIFFERENT, "completed", "expired")
    assert one.why == "its end was inferred (deadline): no event said it"
    assert "status" in {difference.path for difference in one.differences}


def test_the_newest_revision_counts(tmp_path: Path, published: Published) -> None:
    first = listed("s1")
    first["step_details"]["tool_calls"][0]["function"]["output"] = None
    published.event(as_event(first))
    published.event(as_event(listed("s1")))
    assert reconciled(tmp_path, published, page(listed("s1"))).verdict is Outcome.PROVEN


def test_a_listed_step_that_was_never_published_is_found(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    found = reconciled(tmp_path, published, page(listed("s1"), listed("s2")))
    assert found.verdict is Outcome.DIFFERENT
    assert one_of(found, "s2").verdict is Verdict.MISSING


def test_a_published_step_that_the_list_lacks_is_found(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2")))
    found = reconciled(tmp_path, published, page(listed("s1")))
    assert (found.verdict, one_of(found, "s2").verdict) == (Outcome.DIFFERENT, Verdict.EXTRA)
    assert "step_late" not in {one.step_id for one in found.steps}, "its run is not listed"


# --- what cannot be known accuses nobody ----------------------------------------------------------------------------


def test_pages_that_are_not_there_accuse_nobody(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2")))
    found = reconciled(tmp_path, published, page(listed("s1"), has_more=True))
    assert (found.verdict, one_of(found, "s2").verdict) == (Outcome.UNPROVABLE, Verdict.UNVERIFIABLE)
    assert "run_1" in found.notes[0]
    assert reconciled(tmp_path, published, page(listed("s1")), partial=True).verdict is Outcome.UNPROVABLE


def test_a_step_that_had_not_ended_when_the_list_was_made_is_not_judged(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2")))
    lists = [listed("s1"), listed("s2", "in_progress"), listed("s3", "in_progress")]
    found = reconciled(tmp_path, published, page(*lists))
    assert (found.verdict, one_of(found, "s2").verdict) == (Outcome.UNPROVABLE, Verdict.UNVERIFIABLE)
    assert found.counts == {"equal": 1, "unverifiable": 1, "open": 1}


@pytest.mark.parametrize(("ended_s", "verdict"), [(T0_S + 10, Verdict.MISSING), (T0_S + 3_590, Verdict.UNVERIFIABLE),
                                                  (T0_S + 9_999, Verdict.UNVERIFIABLE)])  # fmt: skip
def test_what_ended_when_the_archive_ends_may_have_been_published_later(
    tmp_path: Path, published: Published, ended_s: int, verdict: Verdict
) -> None:
    published.event(as_event(listed("s1")))
    found = reconciled(tmp_path, published, page(listed("s1"), listed("s2", completed_at=ended_s)))
    assert one_of(found, "s2").verdict is verdict


@pytest.mark.parametrize(("ended_s", "verdict"), [(T0_S - 900, Verdict.UNVERIFIABLE), (T0_S + 900, Verdict.MISSING)])
def test_what_ended_before_the_first_record_may_have_been_deleted(
    tmp_path: Path, published: Published, ended_s: int, verdict: Verdict
) -> None:
    published.record(SETTINGS.output.completed, T0_S * 1000, b"gone", b"{}", (), offset=17)
    published.event(as_event(listed("s1")))
    found = reconciled(tmp_path, published, page(listed("s1"), listed("s2", completed_at=ended_s)))
    assert one_of(found, "s2").verdict is verdict


def test_a_step_that_is_there_as_a_reference_is_not_called_missing(tmp_path: Path) -> None:
    published = Published(tmp_path)
    rules = SETTINGS.rules()

    published._state = PartitionState(
        SETTINGS.source.topic, 0, msgspec.structs.replace(rules, max_record_bytes=rules.max_record_bytes // 4096)
    )
    large = listed("s1")
    large["step_details"]["tool_calls"][0]["function"]["output"] = "x" * rules.max_record_bytes
    published.event(as_event(large))
    found = reconciled(tmp_path, published, page(large))
    (one,) = found.steps
    assert (one.verdict, one.why) == (Verdict.UNVERIFIABLE, "published as a reference: snapshot_too_large")


def test_a_step_that_two_lists_tell_differently_is_not_judged(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2")))
    lists = [page(listed("s1", usage=None), listed("s2", "in_progress")), page(listed("s1"), listed("s2"))]
    found = reconciled(tmp_path, published, lists)
    assert one_of(found, "s1").verdict is Verdict.UNVERIFIABLE
    assert one_of(found, "s2").verdict is Verdict.EQUAL, "an older list had it open"


@pytest.mark.parametrize("status", ["queued", "requires_action", None])
def test_of_two_lists_the_one_in_which_the_step_has_ended_counts(
    tmp_path: Path, published: Published, status: str | None
) -> None:
    """Whatever the other one calls a step that has not."""
    ended = listed("s1")
    early = {**ended, "status": status, "completed_at": None, "step_details": None}
    published.event(as_event(ended))
    for lists in ([ended, early], [early, ended]):
        found = reconciled(tmp_path, published, [page(step) for step in lists])
        assert (found.verdict, found.counts) == (Outcome.PROVEN, {"equal": 1, "open": 0})


@pytest.mark.parametrize("form", ["{}", "[{}]\n", "{}\n{}"])
def test_half_a_surrogate_pair_is_read_as_it_is_published(tmp_path: Path, published: Published, form: str) -> None:
    """A service cuts a text by length; JSON may hold what is left of the character."""
    cut = listed("s1", metadata={"a": "b\ud83d", "c\udc00": "\\ud83d \ud83d\ude00"})
    published.event(json.dumps({"event": "thread.run.step.completed", "data": cut}).encode())
    published.write()
    text = json.dumps(cut)
    assert "\\ud83d" in text
    (tmp_path / "lists.json").write_text(form.replace("{}", text))
    found = run(
        [tmp_path / "lists.json"], SETTINGS, lambda: pytest.fail("no broker is asked"), published=[published.path]
    )
    assert (found.verdict, found.counts) == (Outcome.PROVEN, {"equal": 1, "open": 0})


def test_a_step_on_two_partitions_of_the_source_is_named(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    published._state = PartitionState(SETTINGS.source.topic, 4, SETTINGS.rules())
    published._records = ExpectedRecords(Outputs.of_settings(SETTINGS), 4, {})
    published.event(as_event(listed("s1")))
    (one,) = reconciled(tmp_path, published, page(listed("s1"))).steps
    assert (one.verdict, one.why) == (Verdict.DIFFERENT, "published from several source partitions: 0, 4")


def test_an_archive_with_holes_accuses_nobody(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1")))
    hole = Gap(SETTINGS.output.failed, 0, 0, 6, GapKind.MISSING)
    archive = published.write()
    archive.write_bytes(archive.read_bytes() + encode_line(hole))
    one = one_of(reconciled(tmp_path, published, page(listed("s1"), listed("s2"))), "s2")
    assert (one.verdict, one.why) == (Verdict.UNVERIFIABLE, "the archive has holes")


def test_an_archive_without_any_output_proves_nothing(tmp_path: Path, published: Published) -> None:
    published.path.write_bytes(encode_line(ArchivedRecord("elsewhere", 0, 0, 1, b"k", b"{}", ())))
    found = reconciled(tmp_path, published, page(listed("s1")))
    assert (found.verdict, found.counts) == (Outcome.UNPROVABLE, {"unverifiable": 1, "open": 0})


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_ends_with_the_verdict(
    tmp_path: Path, published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "s\x1b[31m2\u202e"
    published.event(as_event(listed("s1")))
    archive = published.write()
    good, bad, report = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "report.json"
    good.write_text(json.dumps(page(listed("s1"))))
    bad.write_text(json.dumps(page(listed("s1"), listed(hostile, run_id="run\x1b[0m"))))
    assert cli._run(["reconcile", str(good), "--published", str(archive)]) == 0
    assert capsys.readouterr().out.startswith("proven\n")
    assert cli._run(["reconcile", str(bad), "--published", str(archive), "--report", str(report)]) == 3
    printed = capsys.readouterr().out
    assert "never seen: step s\ufffd[31m2\ufffd of run run\ufffd[0m" in printed
    assert "\x1b" not in printed
    written = json.loads(report.read_text("utf-8"))
    assert (written["verdict"], written["counts"]["missing"]) == ("difference found", 1)
    assert {one["step_id"]: one["verdict"] for one in written["steps"]} == {"s1": "equal", hostile: "missing"}
    assert cli._run(["reconcile", str(bad), "--published", str(archive), "--report", str(report)]) == 64, (
        "not a new file"
    )
    assert cli._run(["reconcile", str(good), "--published", str(archive), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"equal": 1, "open": 0}


def changed(step: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The step with one leaf changed, for each leaf that says something."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key in value:
                for where, other in walk(value[key], f"{path}.{key}"):
                    yield where, {**value, key: other}
        elif isinstance(value, list):
            for at, item in enumerate(value):
                for where, other in walk(item, f"{path}[{at}]"):
                    yield where, [*value[:at], other, *value[at + 1 :]]
        elif value is not None:
            yield path, value + 1 if isinstance(value, int) else value + "!"

    for where, other in walk(step, ""):
        if where not in (".id", ".object", ".run_id", ".status"):
            yield where, other


def test_every_leaf_that_is_changed_is_found(tmp_path: Path, published: Published) -> None:
    whole = listed("s1")
    published.event(as_event(whole))
    archive = published.write()
    tried = 0
    for where, other in changed(whole):
        (tmp_path / "lists.json").write_text(json.dumps(page(other)))
        found = run([tmp_path / "lists.json"], SETTINGS, lambda: pytest.fail("no broker"), published=[archive])
        (one,) = found.steps
        assert [f".{difference.path}" for difference in one.differences] == [where]
        tried += 1
    assert tried >= 10


@pytest.mark.parametrize(("stable", "why"), [(8, ""), (5, "an open transaction holds back records of")])
def test_what_an_open_transaction_holds_back_is_a_doubt(monkeypatch: pytest.MonkeyPatch, stable: int, why: str) -> None:
    monkeypatch.setattr(EmptyReader, "stable", {0: 8, 1: stable})
    monkeypatch.setattr("processor.audit.reconcile.published_steps.PartitionReader", EmptyReader)

    async def none_behind(*_: object) -> tuple[int, int]:
        return 2, 0

    monkeypatch.setattr(PublishedSteps, "_lag", none_behind)
    steps = PublishedSteps(Settings(), set(), set())
    asyncio.run(steps.read_topics(lambda: cast(Any, None)))
    assert steps.doubt.always.startswith(why)
    assert bool(steps.doubt.always) is bool(why)
    assert any("partition 1" in note and "offset 5" in note for note in steps.notes) is bool(why)
