"""An output item as a run step: the fifteen keys of the snapshot (docs/responses.md says where each comes from)."""

from __future__ import annotations

from typing import Any, Final

from processor.core.effects import Status
from processor.core.wire_types import canonical

_CALLS: Final = frozenset({"program"})
"""Items that are calls though their type does not end in `_call`."""
UNKNOWN: Final = "unknown"
_REPLACEMENT: Final = "\ufffd".encode()


def step_type(item: dict[str, Any]) -> str:
    """The step's `type` by the type of its item."""
    kind = item.get("type")
    if type(kind) is not str or not kind:
        return UNKNOWN
    if kind == "message":
        return "message_creation"
    if kind.endswith("_call") or kind in _CALLS:
        return "tool_calls"
    return "activities" if kind == "mcp_list_tools" else kind


def step_details(item: dict[str, Any]) -> dict[str, Any]:
    """The item, whole, in the shape of `step_details`."""
    kind = step_type(item)
    if kind == "message_creation":
        return {"type": kind, kind: {"message_id": item.get("id"), **item}}
    if kind in ("tool_calls", "activities"):
        return {"type": kind, kind: [item]}
    return {"type": kind, "item" if kind == "type" else kind: item}


def stated_status(item: dict[str, Any]) -> Status:
    """Status of an item that is done. Its own `status` is trusted in one thing: that it failed."""
    return Status.FAILED if item.get("status") == "failed" or error_of(item) is not None else Status.COMPLETED


def error_of(item: dict[str, Any]) -> Any:
    """The item's own error, as an object."""
    return as_error(item.get("error"))


def as_error(error: Any) -> Any:
    """An error as an object; None where there is none."""
    if error is None or error == "" or error == {}:
        return None
    return error if type(error) is dict else {"message": error}


def holds_replacement(value: Any) -> bool:
    """Whether U+FFFD stands anywhere in a JSON value: in the place of half a surrogate pair, where one was replaced."""
    return _REPLACEMENT in canonical(value)


class Facts:
    """Facts of a response that each of its steps carries: conversation, agent or model, metadata."""

    __slots__ = ("assistant_id", "mended", "metadata", "thread_id")

    def __init__(self) -> None:
        self.thread_id: str | None = None
        self.assistant_id: str | None = None
        self.metadata: dict[str, Any] | None = None
        self.mended = False
        """A half of a surrogate pair was replaced in one of them."""

    def take(self, response: dict[str, Any], *, mended: bool) -> None:
        """Take what a lifecycle event says; what it does not say stays. `mended`: a half was replaced in the event."""
        thread_id = _name_of(response.get("conversation"))
        if thread_id is not None:
            self.thread_id = thread_id
        assistant_id = _agent(response) or _name_of(response.get("model"))
        if assistant_id is not None:
            self.assistant_id = assistant_id
        metadata = response.get("metadata")
        if type(metadata) is dict:
            self.metadata = metadata
        if mended:
            self.mended = self.mended or holds_replacement([self.thread_id, self.assistant_id, self.metadata])


def _name_of(value: Any) -> str | None:
    found = value.get("id") if type(value) is dict else value
    return found if type(found) is str and found else None


def _agent(response: dict[str, Any]) -> str | None:
    for key in ("agent", "agent_reference"):
        agent = response.get(key)
        if type(agent) is dict and type(agent.get("name")) is str:
            version = agent.get("version")
            return f"{agent['name']}:{version}" if type(version) in (str, int) else str(agent["name"])
    return None
