"""Read a response object of the Responses API as the steps that its output items are published as.

A response object is what `retrieve` answers, or what `response.completed` carries. It does not number its items as the
stream did: an item is found among the published ones by its id, else by its position in `output`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from processor.audit.reconcile.comparison import PublishedStep
from processor.core.effects import Status
from processor.core.lifecycle import RUN_ENDS
from processor.core.responses.mapping import Facts, as_error, error_of, stated_status, step_details, step_type

OBJECT: Final = "response"
_TOLD: Final = frozenset({"failed", "incomplete"})
"""An item's `status` that says something; the others are not to be trusted (docs/responses.md)."""


def steps_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a response object; their ids say the position in `output`.

    Raises:
        ValueError: it is no whole response object.
    """
    own, outputs = response.get("id"), response.get("output")
    if not isinstance(own, str) or not own:
        raise ValueError("a response without an id")
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise ValueError("a response without its output")
    facts = Facts()
    facts.take(dict(response), mended=False)
    return [_step(response, facts, f"{own}:{position}", item) for position, item in enumerate(outputs)]


def is_ended(response: Mapping[str, Any]) -> bool:
    """Whether the response has ended: nothing will be added to its output."""
    return response.get("status") in RUN_ENDS


def is_whole(response: Mapping[str, Any]) -> bool:
    """Whether its output has all items. One that did not complete may leave out what it was about."""
    return response.get("status") == "completed"


def _step(response: Mapping[str, Any], facts: Facts, step_id: str, item: dict[str, Any]) -> dict[str, Any]:
    told = item if item.get("status") in _TOLD else {key: value for key, value in item.items() if key != "status"}
    status = _statuses(response, item)[0]
    return {
        "id": step_id,
        "object": "thread.run.step",
        "run_id": response["id"],
        "thread_id": facts.thread_id,
        "assistant_id": facts.assistant_id,
        "metadata": facts.metadata,
        "type": step_type(item),
        "step_details": step_details(told),
        "status": status,
        f"{status}_at": _ended_at(response),
        "last_error": error_of(item),
    }


def _statuses(response: Mapping[str, Any], item: dict[str, Any]) -> tuple[str, ...]:
    """Statuses that the step may be published with: completed where its item was done, else as its response ended."""
    stated = stated_status(item)
    if stated is Status.FAILED or item.get("status") == "completed" or response.get("status") == "completed":
        return (stated.value,)
    end = RUN_ENDS.get(str(response.get("status")))
    return (Status.IN_PROGRESS.value,) if end is None else (Status.COMPLETED.value, end.value)


def _ended_at(response: Mapping[str, Any]) -> int | None:
    found = response.get(f"{response.get('status')}_at")
    return found if type(found) is int else None


def placed(
    response: Mapping[str, Any], steps: Iterable[dict[str, Any]], published: Mapping[str, Mapping[int, PublishedStep]]
) -> list[dict[str, Any]]:
    """The steps of a response under the ids of the published ones that hold the same items.

    Args:
        published: the steps of the response, by step id.
    """
    newest = {step_id: max(found.values(), key=lambda one: one.order) for step_id, found in published.items()}
    by_item: dict[str, list[str]] = {}
    for step_id in sorted(newest, key=_index):
        item_id = _item_id(newest[step_id].snapshot)
        if item_id is not None:
            by_item.setdefault(item_id, []).append(step_id)
    told = list(zip(steps, response["output"], strict=True))
    places = _places([step["id"] for step, _ in told], [item.get("id") for _, item in told], by_item)
    taken = {step_id for step_id in places if step_id is not None}
    out: list[dict[str, Any]] = []
    for (step, item), place in zip(told, places, strict=True):
        if place is None and step["id"] in taken:  # another item is published in its position
            out.append({**step, "id": f"{step['id']} ({str(item.get('id'))[:80]})"})
            continue
        step = {**step, "id": place or step["id"]}
        one = newest.get(step["id"])
        out.append(step if one is None else _as_published(step, response, item, one))
    return out


def _places(positions: Sequence[str], ids: Sequence[Any], by_item: Mapping[str, Sequence[str]]) -> list[str | None]:
    """For each item the published step that holds the item of its id; None where no step does.

    Gateways leave ids empty, or give one to several items: of the steps of an id an item takes that in its own
    position, and items without one there take what is left, in order.
    """
    places: list[str | None] = [None] * len(ids)
    taken: set[str] = set()
    for by_position in (True, False):
        for at, item_id in enumerate(ids):
            if places[at] is not None or not isinstance(item_id, str):
                continue
            for step_id in by_item.get(item_id, ()):
                if step_id not in taken and (not by_position or step_id == positions[at]):
                    places[at] = step_id
                    taken.add(step_id)
                    break
    return places


def _index(step_id: str) -> tuple[int, str]:
    index = step_id.rpartition(":")[2]
    return int(index) if index.isascii() and index.isdigit() and len(index) < 10 else -1, step_id


def _as_published(
    step: dict[str, Any], response: Mapping[str, Any], item: dict[str, Any], one: PublishedStep
) -> dict[str, Any]:
    status = one.snapshot.get("status")
    if status == step["status"] or status not in _statuses(response, item):
        return step
    told = {key: value for key, value in step.items() if key != f"{step['status']}_at"}
    error = as_error(response.get("error")) if status == Status.FAILED.value else None
    return {**told, "status": status, f"{status}_at": _ended_at(response), "last_error": step["last_error"] or error}


def _item_id(snapshot: Mapping[str, Any]) -> Any:
    details = snapshot.get("step_details")
    held = details.get(details.get("type")) if isinstance(details, dict) else None
    if isinstance(held, list):
        held = held[0] if held else None
    found = held.get("id") if isinstance(held, dict) else None
    return found if isinstance(found, str) else None
