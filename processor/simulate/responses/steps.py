"""Expected step of an output item: the mapping of docs/responses.md, written independently of the core."""

from __future__ import annotations

from typing import Any, Final

from processor.simulate.steps import SCHEMA_KEYS


class ResponseStep:
    """One output item of a response, and what is expected of it."""

    def __init__(self, response: dict[str, Any], key: str, index: int) -> None:
        self.id = f"{key}:{index}"
        self.anomalies: set[str] = set()
        self.began_s = 0
        self.incomplete: dict[str, Any] | None = None
        """Reason of an incomplete response, where that ended the step."""
        self._key = key
        self._response = response

    def snapshot(self, item: dict[str, Any], status: str, ended_s: int, error: Any = None) -> dict[str, Any]:
        """The step as it stands with this item and this status, reached at this time."""
        response = self._response
        found: dict[str, Any] = dict.fromkeys(SCHEMA_KEYS)
        agent = response.get("agent")
        conversation = response.get("conversation")
        incomplete = self.incomplete or ({"reason": None} if item.get("status") == "incomplete" else None)
        said = {"incomplete_details": incomplete} if incomplete else {}
        return found | {
            **said,
            "id": self.id,
            "object": "thread.run.step",
            "run_id": self._key,
            "thread_id": conversation["id"] if conversation else None,
            "assistant_id": f"{agent['name']}:{agent['version']}" if agent else response["model"],
            "created_at": self.began_s,
            "type": _type_of(item["type"]),
            "status": status,
            "step_details": _details_of(item),
            "last_error": error if error is not None else _error_of(item),
            f"{status}_at": ended_s,
            "metadata": response["metadata"],
            "inferred_times": sorted(["created_at", f"{status}_at"]),
        }


def status_of(item: dict[str, Any]) -> str:
    """Status of a step whose item is done."""
    return "failed" if item.get("error") or item.get("status") == "failed" else "completed"


_TYPES: Final = {"message": "message_creation", "mcp_list_tools": "activities", "program": "tool_calls"}


def _type_of(kind: str) -> str:
    return _TYPES.get(kind) or ("tool_calls" if kind.endswith("_call") else kind)


def _details_of(item: dict[str, Any]) -> dict[str, Any]:
    kind = _type_of(item["type"])
    if kind == "message_creation":
        return {"type": kind, kind: item | {"message_id": item["id"]}}
    return {"type": kind, kind: [item] if kind in ("tool_calls", "activities") else item}


def _error_of(item: dict[str, Any]) -> Any:
    error = item.get("error")
    return {"message": error} if isinstance(error, str) else error
