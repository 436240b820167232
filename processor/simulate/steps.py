"""A generated step, the events that carry it, and the snapshot that must be published of it."""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from processor.simulate.texts import new_id
from processor.simulate.tools import Call

SCHEMA_KEYS: Final = (
    "id",
    "object",
    "created_at",
    "assistant_id",
    "thread_id",
    "run_id",
    "type",
    "status",
    "step_details",
    "last_error",
    "expired_at",
    "cancelled_at",
    "failed_at",
    "completed_at",
    "metadata",
)
"""Every published snapshot has these."""

_BLANK: Final[dict[str, Any]] = dict.fromkeys(SCHEMA_KEYS)


class Kind(Enum):
    """Kind of an event, for its envelope and its repeats."""

    CREATED = "created"
    PROGRESS = "progress"
    DELTA = "delta"
    END = "end"
    REFUSED = "refused"
    RUN = "run"
    IGNORED = "ignored"
    STREAM_END = "stream_end"


class Ending(NamedTuple):
    """A snapshot that an event causes to be published."""

    step: Step
    revision: int
    snapshot: dict[str, Any]
    inferred: str | None = None


class Event(NamedTuple):
    """One event before it is put into an envelope."""

    at_ms: int
    kind: Kind
    name: str
    data: str
    """JSON."""
    bare: bool = False
    """Can be told from the object alone (E2)."""
    alone: bool = False
    """Must be the only event of its record, whose timestamp must be `at_ms`, and never be repeated."""
    endings: tuple[Ending, ...] = ()
    reason: str = ""
    """Reason why it must be refused."""
    again: bool = False
    """Said before, in a record of its own (not a repeat of the record): nothing may come of it."""


class OwnRun(Protocol):
    """Attributes of a run that its steps use."""

    rng: Random
    now: float
    dialect: str
    id: str
    thread_id: str
    assistant_id: str
    expires_at: int
    object_type: str
    renames_deadline: bool
    vendor: dict[str, Any]
    metadata: dict[str, str]


class Step:
    """One step of a run: its whole content is known before the first event."""

    def __init__(self, run: OwnRun, tool: str) -> None:
        rng = run.rng
        self.run = run
        self.id = new_id(rng, "step_") if run.dialect != "lookalike" else f"{rng.getrandbits(128):032x}"
        self.tool = tool
        self.type = tool if tool in ("message_creation", "activities") else "tool_calls"
        self.anomalies: set[str] = set()
        self.calls: list[tuple[int, Call]] = []
        self.created_at = int(run.now) // 1000
        self.first_word = ""
        if self.type == "message_creation":
            self.message_id = new_id(rng, "msg_")
        elif self.type == "activities":
            self.activities = [
                {"id": new_id(rng, "act_"), "type": "mcp_list_tools", "tools": {"fetch_page": {"required": []}}}
            ]

    def details(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """`step_details` with these tool calls."""
        if self.type == "message_creation":
            return {"type": self.type, self.type: {"message_id": self.message_id}}
        if self.type == "activities":
            return {"type": self.type, self.type: self.activities}
        return {"type": self.type, "tool_calls": calls}

    def object(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """The object of the open step, in the run's dialect."""
        run = self.run
        head = {
            "id": self.id,
            "object": run.object_type,
            "created_at": self.created_at,
            "run_id": run.id,
            "assistant_id": run.assistant_id,
            "thread_id": run.thread_id,
            "type": self.type,
            "status": "in_progress",
        }
        if run.dialect == "lookalike":
            if not run.object_type:
                del head["object"]
            # Some re-serialise the deadline under the name of the past: that says nothing about the status.
            deadline = {"expired_at": run.expires_at} if run.renames_deadline else {}
            return head | {"step_details": self.details(calls), "vendor": run.vendor} | deadline
        rest = {
            "cancelled_at": None,
            "completed_at": None,
            "expires_at": run.expires_at,
            "failed_at": None,
            "last_error": None,
            "step_details": self.details(calls),
            "usage": None,
        }
        return head | rest | ({"metadata": run.metadata} if run.dialect == "azure" else {})


def snapshot_of(whole: dict[str, Any]) -> dict[str, Any]:
    """Snapshot of a step object: all keys of the schema, and its other keys."""
    return {**_BLANK, "object": "thread.run.step", **whole}
