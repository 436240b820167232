"""The lifecycle, cell by cell: what the page says is typed here by hand and never read from the table.

`python -m tests.core.test_lifecycle > docs/lifecycle.md` draws the table anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from processor.core.effects import Publish, Status
from processor.core.lifecycle import AFTER_INFERENCE, ORPHANING, RUN_ENDS, TERMINAL, TRANSITIONS, Kind, Move, move
from tests.core.scripted_log import Play, call, calls, headers, published, refused, run, snapshot, step, text
from tests.core.test_restart import portrait

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"
KINDS = ("created", "stated", "in_progress", "delta", "completed", "failed", "cancelled", "expired")
ENDS = ("completed", "failed", "cancelled", "expired")

# Row: where the step is. Columns: KINDS. "!" is refused as an illegal transition.
# fmt: off
CELLS = {
    "never seen":  ("open",   "open",    "join",    "join",  "publish", "publish", "publish", "publish"),
    "in_progress": ("repeat", "refresh", "refresh", "fold",  "publish", "publish", "publish", "publish"),
    "completed":   ("repeat", "!",       "!",       "amend", "repeat",  "!",       "!",       "!"),
    "failed":      ("repeat", "!",       "!",       "amend", "!",       "repeat",  "!",       "!"),
    "cancelled":   ("repeat", "!",       "!",       "amend", "!",       "!",       "repeat",  "!"),
    "expired":     ("repeat", "!",       "!",       "amend", "!",       "!",       "!",       "repeat"),
    "by its run":  ("repeat", "!",       "!",       "amend", "overrule", "overrule", "overrule", "overrule"),
    "by deadline": ("repeat", "!",       "!",       "amend", "overrule", "overrule", "overrule", "overrule"),
}
# fmt: on


def brought_to(row: str) -> Play:
    """A play whose step `s1` stands where the row says."""
    play = Play()
    if row == "never seen":
        return play
    play.created(type="tool_calls", expires_at=1_010)
    if row in ENDS:
        play.say(f"step.{row}", step(row, type="tool_calls"))
    elif row == "by its run":
        play.say("run.failed", run("failed"))
    elif row == "by deadline":
        play.wait(15)
    return play


def say(play: Play, kind: str, **more: Any) -> list[Any]:
    if kind == "delta":
        return play.say("step.delta", calls(call(0, "x")))
    if kind == "stated":
        return play.put(b'{"id":"s1","object":"thread.run.step","run_id":"r1","status":"in_progress","new":1}')
    status = "in_progress" if kind == "created" else kind
    return play.say(f"step.{kind}", step(status, type="tool_calls", **more))


@pytest.mark.parametrize(("row", "kind"), [(row, kind) for row in CELLS for kind in KINDS])
def test_every_cell_does_what_the_page_says(row: str, kind: str) -> None:
    play = brought_to(row)
    before_counts, before = play.state.counts.copy(), portrait(play.state)
    cell = CELLS[row][KINDS.index(kind)]
    effects = say(play, kind)
    entry = play.state.steps["s1"]
    if cell == "!":
        assert refused(effects) == "illegal_transition"
        assert portrait(play.state)[2]["s1"][-1] == before[2]["s1"][-1], "an illegal transition changes nothing"
        assert portrait(play.state)[2]["s1"][0] == before[2]["s1"][0]
        assert play.state.open_steps == 0
    elif cell in ("open", "join", "refresh", "fold"):
        assert effects == []
        assert entry.status is Status.IN_PROGRESS
        assert play.state.open_steps == 1
        assert entry.step is not None
        assert ("joined_midstream" in entry.step.anomalies) is (cell == "join")
        assert entry.step.events == (2 if cell in ("refresh", "fold") else 1)
    elif cell == "repeat":
        assert effects == []
        assert play.state.counts["repeated"] == before_counts["repeated"] + 1
        assert portrait(play.state)[2]["s1"][-1] == before[2]["s1"][-1], "a repeat changes nothing"
    elif cell == "publish":
        effect = published(effects)
        assert (effect.status, effect.revision, effect.inferred) == (Status(kind), 0, None)
        assert effect.anomalies == (("joined_midstream",) if row == "never seen" else ())
        assert play.state.open_steps == 0
    elif cell == "amend":
        effect = published(effects)
        wanted = {"by its run": Status.FAILED, "by deadline": Status.EXPIRED}.get(row) or Status(row)
        assert (effect.status, effect.revision) == (wanted, 1)
        assert snapshot(effect)["step_details"]["tool_calls"][0]["function"]["arguments"] == "x"
    else:
        assert cell == "overrule"
        effect = published(effects)
        assert (effect.status, effect.revision, effect.inferred) == (Status(kind), 1, None)
        assert "inferred" not in headers(effect)


@pytest.mark.parametrize("row", CELLS)
def test_the_table_has_exactly_these_cells(row: str) -> None:
    """No cell is open by oversight: what is not refused here is in the table and the other way round."""
    places: dict[str, Status | None] = {
        "never seen": None,
        "by its run": Status.FAILED,
        "by deadline": Status.EXPIRED,
    }
    place = places[row] if row in places else Status(row)
    legal = {kind for kind, cell in zip(KINDS, CELLS[row], strict=True) if cell != "!"}
    assert {kind.value for kind in Kind if move(place, kind, inferred=row.startswith("by ")) is not None} == legal


def test_the_sets_that_follow_from_the_table() -> None:
    assert {status.value for status in TERMINAL} == set(ENDS)
    assert {kind.value for kind in Kind} == set(KINDS)
    assert {run: status.value for run, status in RUN_ENDS.items()} == {
        "completed": "expired",
        "incomplete": "expired",
        "failed": "failed",
        "cancelled": "cancelled",
        "expired": "expired",
    }
    assert set(ORPHANING) == {"completed", "incomplete"}


# --- L5: repeats, and what only looks like one


def test_a_created_for_a_step_that_only_deltas_have_opened_fills_it() -> None:
    play = Play()
    play.say("step.delta", calls(call(0, "a")))
    assert play.created(type="tool_calls", metadata={"k": "v"}) == []
    assert play.state.counts["repeated"] == 0
    done = snapshot(play.completed())
    assert (done["metadata"], done["type"], done["run_id"]) == ({"k": "v"}, "tool_calls", "r1")
    assert done["step_details"]["tool_calls"][0]["function"]["arguments"] == "a"


def test_a_second_created_for_an_open_step_is_a_repeat_even_if_it_says_more() -> None:
    play = Play()
    play.created()
    assert play.created(metadata={"k": "v"}) == []
    assert play.state.counts["repeated"] == 1
    assert snapshot(play.completed())["metadata"] is None


def test_the_same_end_with_other_contents_is_an_amendment() -> None:
    play = Play()
    play.created()
    assert play.completed(usage={"total_tokens": 1}).revision == 0
    second = play.completed(usage={"total_tokens": 2})
    assert (second.revision, snapshot(second)["usage"]) == (1, {"total_tokens": 2})
    assert play.say("step.completed", step("completed", usage={"total_tokens": 2})) == []
    assert play.state.counts["repeated"] == 1


def test_a_delta_after_the_end_that_changes_no_byte_publishes_nothing() -> None:
    play = Play()
    play.say("step.completed", step("completed", step_details={"type": "tool_calls", "tool_calls": []}))
    assert play.say("step.delta", {"id": "s1", "delta": {"step_details": None}}) == []
    assert play.say("step.delta", calls(call(0, "late"))) != []


# --- L6: the run ends


@pytest.mark.parametrize(
    ("run_status", "step_status", "anomalies"),
    [
        ("completed", "expired", ("orphaned_by_run",)),
        ("incomplete", "expired", ("orphaned_by_run",)),
        ("failed", "failed", ()),
        ("cancelled", "cancelled", ()),
        ("expired", "expired", ()),
    ],
)
def test_a_run_takes_its_open_steps_along_in_the_order_of_their_ids(
    run_status: str, step_status: str, anomalies: tuple[str, ...]
) -> None:
    play = Play()
    for step_id in ("s2", "s10", "s1"):
        play.created(step_id=step_id)
    play.created(step_id="other", run_id="r2")
    effects = play.say(f"run.{run_status}", run(run_status) | {f"{run_status}_at": 77}, at=1_002.9)
    assert [e.step_id for e in effects if isinstance(e, Publish)] == ["s1", "s10", "s2"]
    for effect in effects:
        assert isinstance(effect, Publish)
        assert (effect.status.value, effect.inferred, effect.anomalies) == (step_status, "run", anomalies)
        assert headers(effect)["inferred"] == "run"
        assert snapshot(effect)[f"{step_status}_at"] == 77
    assert play.state.open_steps == 1


def test_a_run_without_its_time_gives_the_records_and_a_failed_one_its_error() -> None:
    play = Play()
    play.created()
    play.created(step_id="s2", last_error={"code": "own"})
    effects = play.say("run.failed", run("failed", failed_at="x", last_error={"code": "run"}), at=1_002.9)
    first, second = (snapshot(effect) for effect in effects if isinstance(effect, Publish))
    assert (first["failed_at"], first["last_error"]) == (1_002, {"code": "run"})
    assert second["last_error"] == {"code": "own"}


@pytest.mark.parametrize("status", ["queued", "in_progress", "requires_action", "cancelling"])
def test_a_run_that_goes_on_ends_nothing(status: str) -> None:
    play = Play()
    play.created()
    assert play.say(f"run.{status}", run(status)) == []
    assert play.state.open_steps == 1
    assert play.state.counts["ignored"] == 1


@pytest.mark.parametrize("names", ["key", "header"])
def test_an_error_in_the_stream_ends_the_open_steps_of_its_run_with_what_it_says(names: str) -> None:
    said = {"code": "server_error", "message": "overloaded"}
    play = Play()
    run_id = "key" if names == "key" else "r1"
    play.created(run_id=run_id)
    play.created(step_id="s2", run_id="other")
    headers = () if names == "key" else (("runstep-run-id", b"r1"),)
    ended = published(play.put(text({"event": "error", "data": {"error": said}}), headers=headers))
    assert (ended.status, ended.inferred, ended.step_id) == (Status.FAILED, "run", "s1")
    assert snapshot(ended)["last_error"] == said
    assert play.state.open_steps == 1
    real = play.completed(run_id=run_id)
    assert (real.revision, real.status, snapshot(real)["last_error"]) == (1, Status.COMPLETED, None), "L6a"


def test_the_status_of_a_run_is_the_truth_not_the_name_of_its_event() -> None:
    play = Play()
    play.created()
    effect = published(play.say("run.completed", run("failed")))
    assert effect.status is Status.FAILED
    assert play.state.counts["run_status_disagrees"] == 1


def test_a_step_that_arrives_after_its_run_ends_at_once() -> None:
    play = Play()
    play.say("run.cancelled", run("cancelled"))
    created = published(play.created())
    assert (created.status, created.inferred) == (Status.CANCELLED, "run")
    assert created.anomalies == ("after_run_ended",)
    play.say("step.delta", calls(call(0, "a"), step_id="s2"))
    refreshed = published(play.say("step.in_progress", step(step_id="s2")))
    assert refreshed.anomalies == ("after_run_ended", "joined_midstream")
    real = play.completed()
    assert (real.revision, real.inferred, snapshot(real)["cancelled_at"]) == (1, None, None)


def test_a_run_is_remembered_for_its_while_and_no_longer() -> None:
    play = Play()
    play.say("run.cancelled", run("cancelled"))
    play.wait(20)
    assert published(play.created()).status is Status.CANCELLED
    play.wait(21)
    assert play.created(step_id="s2") == []


def test_a_real_end_wins_over_an_inferred_one_as_if_that_had_not_been() -> None:
    """L6a, and after it the table of real ends counts again."""
    play = Play()
    play.created()
    first = published(play.say("run.failed", run("failed", failed_at=5, last_error={"code": "x"})))
    assert snapshot(first)["failed_at"] == 5
    second = snapshot(play.completed(completed_at=9))
    assert (second["failed_at"], second["last_error"], second["completed_at"]) == (None, None, 9)
    assert refused(play.say("step.failed", step("failed"))) == "illegal_transition"


# --- what an event says


@pytest.mark.parametrize(
    ("name", "status", "kind", "anomalies"),
    [
        ("created", "in_progress", None, ()),
        ("in_progress", "in_progress", None, ()),
        ("completed", "in_progress", None, ("status_disagrees",)),
        ("created", "completed", "completed", ("status_disagrees",)),
        ("completed", "failed", "failed", ("status_disagrees",)),
        ("completed", "odd", "completed", ("unknown_status",)),
        ("completed", None, "completed", ()),
        (None, "odd", None, ("unknown_status",)),
        (None, "expired", "expired", ()),
    ],
)
def test_status_decides_and_the_name_helps_out(
    name: str | None, status: str | None, kind: str | None, anomalies: tuple[str, ...]
) -> None:
    play = Play()
    play.created()
    data = step(status)
    effects = play.say(f"step.{name}", data) if name else play.put(text(data))
    if kind is None:
        assert effects == []
        assert play.state.open_steps == 1
        effects = [play.completed()]
    assert published(effects).status.value == (kind or "completed")
    assert published(effects).anomalies == (() if name == "created" and kind is None else anomalies)


# --- the drawing


def drawing() -> str:
    """The table as a page: a Mermaid diagram of what changes a status, and every cell."""
    lines = [
        "# The lifecycle of a step",
        "",
        "Drawn from `processor/core/lifecycle.py`; the rules are those of [semantics.md](semantics.md).",
        "An end that a run or a deadline implied is overruled by a real one (L6a).",
        "",
        "```mermaid",
        "stateDiagram-v2",
    ]
    for place, row in TRANSITIONS.items():
        arrows: dict[str, list[str]] = {}
        for kind, chosen in row.items():
            arrows.setdefault(_next(place, kind, chosen), []).append(kind.value)
        source = "[*]" if place is None else place.value
        lines += [f"    {source} --> {target}: {', '.join(kinds)}" for target, kinds in arrows.items()]
    for kind, chosen in AFTER_INFERENCE.items():
        if chosen is Move.OVERRULE:
            lines.append(f"    inferred --> {kind.value}: {kind.value}")
    lines += ["```", "", f"| | {' | '.join(k.value for k in Kind)} |", f"|---|{'---|' * len(Kind)}"]
    rows = [("never seen" if place is None else place.value, row) for place, row in TRANSITIONS.items()]
    for name, cells in (*rows, ("inferred end", AFTER_INFERENCE)):
        shown = (cells[k].name.lower().replace("_", " ") if k in cells else "refused" for k in Kind)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _next(place: Status | None, kind: Kind, chosen: Move) -> str:
    if chosen in (Move.END, Move.JOIN_END):
        return kind.value
    return "in_progress" if place is None else place.value


def test_the_drawing_is_the_table() -> None:
    assert PAGE.read_text() == drawing(), "run `python -m tests.core.test_lifecycle > docs/lifecycle.md`"


if __name__ == "__main__":
    sys.stdout.write(drawing())
