"""One response: planned first, then emitted as the events of a service, in order and with timestamps.

What must be published follows from the plan, never from the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final, NamedTuple

from processor.simulate.parameters import RESPONSE_ITEMS, Parameters
from processor.simulate.responses.gateway import Gateway
from processor.simulate.responses.items import PLANS, Plan
from processor.simulate.responses.steps import ResponseStep, status_of
from processor.simulate.texts import Mix, Texts, new_id

_ENDS: Final = Mix(
    ("completed", "incomplete", "failed"),
    {"completed": 0.85, "incomplete": 0.08, "failed": 0.07},
)
_ADDED: Final = -1
"""Stands for the number of the event that begins the item."""
_BUSY_MS: Final = 60_000
"""A response takes about this long at most."""


class Outcome(NamedTuple):
    """A snapshot that an event causes to be published: of which step, in which form."""

    step: ResponseStep
    item: dict[str, Any]
    status: str
    inferred: str | None = None
    error: Any = None
    revision: int = 0


class ResponseEvent(NamedTuple):
    """One event before it is put into a record."""

    at_ms: int
    data: dict[str, Any]
    opens: ResponseStep | None = None
    ends: tuple[Outcome, ...] = ()
    alone: bool = False
    """Must be the only event of its record."""
    retrieved: bool = False
    """A response object that was asked for: no stream has it, and it has no number."""


class ResponseRun:
    """One response. `events()` emits it; `now` is its clock in milliseconds.

    `left_open`: the steps that only their deadline ends; known once all events were emitted.
    """

    def __init__(self, parameters: Parameters, rng: Random, texts: Texts, start_ms: int) -> None:
        self.rng, self._parameters, self._texts = rng, parameters, texts
        self.now: float = start_ms
        self.id = new_id(rng, "resp_")
        self.left_open: list[Outcome] = []
        self.first_number: int | None = rng.choice((0, 0, 0, 1))
        if rng.random() < parameters.unnumbered:
            self.first_number = None
        self.rotates = rng.random() < parameters.rotated
        self.gateway = Gateway(parameters, rng)
        if self.gateway.is_faulty:
            self.rotates = False  # what tells its items apart
        if self.gateway.is_numbering and self.first_number is None:
            self.first_number = 0
        self._obfuscates = rng.random() < 0.3
        self._response = self._object(start_ms // 1000)
        self._number = self.first_number or 0
        self._open: dict[int, tuple[ResponseStep, dict[str, Any]]] = {}  # with what is known of the item
        self._ended: dict[int, dict[str, Any]] = {}
        self._begun = 0
        self._unseen: ResponseStep | None = None  # its begin was lost, and nothing else of it came
        self._plan()

    @property
    def has_end(self) -> bool:
        """Whether anything says that the response is over."""
        return self._fate != "dropped"

    @property
    def key(self) -> bytes:
        """The key of its records: the first id that it was called."""
        return self.id.encode()

    def _object(self, created_at: int) -> dict[str, Any]:
        rng = self.rng
        foundry = rng.random() < 0.2
        agent = {"agent": {"type": "agent_id", "name": "clerk", "version": "3"}} if foundry else {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": created_at,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": "gpt-5.2",
            "conversation": {"id": new_id(rng, "conv_")} if rng.random() < 0.4 else None,
            "previous_response_id": None,
            "metadata": {"tenant": self._texts.piece().text} if rng.random() < 0.5 else {},
            "output": [],
            "usage": None,
            **agent,
        }

    def _plan(self) -> None:
        """Plan the course of the response before it begins."""
        d, rng = self._parameters, self.rng
        items = Mix(RESPONSE_ITEMS, d.response_items)
        self._plans = [
            PLANS[items.pick(rng)](rng, self._texts, rng.randint(d.deltas // 2, d.deltas + d.deltas // 2))
            for _ in range(rng.randint(1, 2 * d.steps - 1))
        ]
        self._parallel = rng.random() < 0.3 and not self.gateway.counts_anew
        self._fate = "dropped" if rng.random() < d.dropped else "ended"
        if self._fate == "dropped" and rng.random() < 0.6:
            self._fate = rng.choice(("retrieved", "retrieved", "retrieved_cancelled"))
        self._end = _ENDS.pick(rng)
        keeps_open = self._fate != "ended" or (self._end != "completed" and rng.random() < 0.7)
        self._open_at_end = keeps_open and self._plans[-1].streamed is not None
        self._loses = self.first_number is not None and not self._open_at_end and rng.random() < d.lost
        self._loses = self._loses and not self.gateway.is_faulty  # an item that loses its begin may have no place
        if self._end == "incomplete" and self._plans[-1].done["type"] == "message":
            last = self._plans[-1]
            self._plans[-1] = last._replace(done=last.done | {"status": "incomplete"})
        pieces = sum(len(plan.said) + 2 for plan in self._plans)
        self._pace_ms = min(80.0, _BUSY_MS / pieces)

    # --- the stream ---

    def events(self) -> Iterator[ResponseEvent]:
        """Yield the events of the response."""
        for kind in ("created", "in_progress"):
            yield self._event(kind, {"response": self._called()})
        whole = len(self._plans) - self._open_at_end
        if self._parallel and not self._loses:
            yield from self._at_once(list(range(whole)))
        else:
            for index in range(whole):
                yield from self._item(index)
        if self._open_at_end:
            yield from self._begin(whole)
        if self._fate == "ended":
            yield self._last_event()
        else:
            yield from self._broken()

    def _item(self, index: int) -> Iterator[ResponseEvent]:
        yield from self._begin(index)
        yield from self._finish(index)

    def _at_once(self, indexes: list[int]) -> Iterator[ResponseEvent]:
        """Items whose events interleave, each in its own order."""
        waiting = {index: self._item(index) for index in indexes}
        while waiting:
            index = self.rng.choice(sorted(waiting))
            event = next(waiting[index], None)
            if event is None:
                del waiting[index]
            else:
                yield event

    def _begin(self, index: int) -> Iterator[ResponseEvent]:
        """The item from its begin to the last that is said before its end."""
        plan = self._plans[index]
        is_unplacing = self.gateway.is_unplacing
        step = ResponseStep(self._response, self.id, self.gateway.first_index + self._begun if is_unplacing else index)
        self._begun += 1
        opening = self._renamed(plan.opening)
        self._open[index] = step, (plan.streamed or {}) | {"id": opening["id"]}
        lost = self._to_lose(plan)
        added = self._event("output_item.added", {"output_index": index, "item": opening}, opens=step)
        unseen: ResponseStep | None = None
        if lost == _ADDED:
            step.anomalies |= {"joined_midstream", "sequence_gap"}
            unseen = step
        else:
            yield added
        for number, said in enumerate(plan.said):
            fields = {"output_index": index, **said.fields}
            if said.names_item or self.gateway.names_items:
                fields["item_id"] = self._item_id(plan)
            if self._obfuscates and "delta" in fields:
                fields["obfuscation"] = "x" * self.rng.randint(0, 9)
            opens = unseen if said.fields and not said.kind.endswith("partial_image") else None
            event = self._event(said.kind, fields, opens=opens)
            if number == lost:
                step.anomalies |= {"sequence_gap", "fold_divergence"} if said.is_piece else {"sequence_gap"}
                continue
            unseen = None if opens is not None else unseen
            yield event
        self._unseen = unseen

    def _to_lose(self, plan: Plan) -> int | None:
        """Which event of the item never comes: its begin, a piece of a text, or a progress event."""
        fit = [_ADDED, *(at for at, said in enumerate(plan.said) if said.is_piece or not said.fields)]
        if not self._loses or self.rng.random() < 0.3:
            return None
        self._loses = False
        return self.rng.choice(fit)

    def _finish(self, index: int) -> Iterator[ResponseEvent]:
        plan = self._plans[index]
        item = self._ended[index] = self._renamed(plan.done, is_end=True)
        step, known = self._open[index]
        fields: dict[str, Any] = {"output_index": index, "item": item}
        if plan.streamed is not None and self.gateway.leaves_item_out():
            item = known
            fields = self.gateway.without_item(fields | {"item_id": self._item_id(plan)})
        end = Outcome(step, item, status_of(item))
        event = self._event("output_item.done", fields, opens=self._unseen, ends=(end,))
        if self._loses and self._end == "completed" and self._fate == "ended" and self.rng.random() < 0.3:
            self._loses = False
            step.anomalies |= {"sequence_gap", "orphaned_by_run"}
            return
        del self._open[index]
        yield event

    def _broken(self) -> Iterator[ResponseEvent]:
        """Break the connection: open steps end by their deadline, or by the retrieved response."""
        if self._fate == "dropped":
            self.left_open = [Outcome(step, item, "expired", "deadline") for step, item in self._open.values()]
            return
        self.now += self.rng.randint(1_000, 60_000)
        if self._fate == "retrieved_cancelled":
            status = "cancelled"
            ends = tuple(Outcome(step, item, "cancelled", "run") for step, item in self._open.values())
        else:
            status = "completed"
            for index, (step, _) in self._open.items():
                self._ended[index] = self._plans[index].done
                step.anomalies.add("orphaned_by_run")
            whole = [(step, self._ended[index]) for index, (step, _) in self._open.items()]
            ends = tuple(Outcome(step, item, status_of(item)) for step, item in whole)
        data = {"type": f"response.{status}", "response": self._whole(status)}
        yield ResponseEvent(self._tick(), data, None, ends, alone=True, retrieved=True)

    def _last_event(self) -> ResponseEvent:
        """The end of the response: what is open ends with it."""
        response = self._whole(self._end)
        ends = []
        for index, (step, item) in self._open.items():
            if index in self._ended:  # only that it was done was lost: the response has the item
                ends.append(Outcome(step, self._ended[index], status_of(self._ended[index])))
                continue
            if self._end == "failed":
                ends.append(Outcome(step, item, "failed", "run", response["error"]))
                continue
            step.anomalies.add("orphaned_by_run")
            step.incomplete = response["incomplete_details"]
            ends.append(Outcome(step, item, "expired", "run"))
        name = self.gateway.name_of_end(self._end)
        says = {"error": response["error"]} if name.endswith("error") else {"response": response}
        return self._event(name, says, ends=tuple(ends), is_end=True)

    def _whole(self, status: str) -> dict[str, Any]:
        """The response at its end, with all its items that are done."""
        return self._called() | {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "error": {"code": "server_error", "message": "It went wrong."} if status == "failed" else None,
            "output": [self._ended[index] for index in sorted(self._ended)],
            "usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30},
        }

    # --- events ---

    def _event(
        self,
        kind: str,
        fields: dict[str, Any],
        *,
        opens: ResponseStep | None = None,
        ends: tuple[Outcome, ...] = (),
        is_end: bool = False,
    ) -> ResponseEvent:
        numbered = {} if self.first_number is None else {"sequence_number": self._number}
        self._number += 1
        data = {"type": kind if is_end else f"response.{kind}", **fields, **numbered}
        return ResponseEvent(self._tick(), self.gateway.send(data, is_end=is_end), opens, ends)

    def _tick(self) -> int:
        self.now += self.rng.random() * 2 * self._pace_ms
        return int(self.now)

    def _called(self) -> dict[str, Any]:
        """The response under the id that this event calls it."""
        if not self.rotates or self._number == (self.first_number or 0):
            return self._response
        return self._response | {"id": new_id(self.rng, "resp_")}

    def _renamed(self, item: dict[str, Any], *, is_end: bool = False) -> dict[str, Any]:
        rotates = self.rotates or (is_end and self.gateway.changes_ids)
        return item | {"id": new_id(self.rng, "item_")} if rotates else item

    def _item_id(self, plan: Plan) -> str:
        return new_id(self.rng, "item_") if self.rotates else str(plan.opening["id"])
