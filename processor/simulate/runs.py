"""One agent run: planned first, then emitted as the events of a service, in order and with timestamps.

The plan decides how each step ends. What must be published follows from the plan, never from the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from processor.simulate.parameters import DIALECTS, TOOLS, Parameters
from processor.simulate.steps import Ending, Event, Kind, Step, snapshot_of
from processor.simulate.texts import Mix, Texts, new_id
from processor.simulate.tools import STREAMED, plan_call, text_of

_SPOKEN: Final = {
    "openai": frozenset(("message_creation", "function", "code_interpreter", "file_search")),
    "azure": frozenset(TOOLS),
    "lookalike": frozenset(("message_creation", "function", "code_interpreter", "novel")),
}
_ENDS: Final = Mix(
    ("completed", "failed", "cancelled", "expired"),
    {"completed": 0.92, "failed": 0.04, "cancelled": 0.02, "expired": 0.02},
)
_RUN_ENDS: Final = Mix(
    ("completed", "incomplete", "failed", "cancelled", "expired"),
    {"completed": 0.1, "incomplete": 0.1, "failed": 0.25, "cancelled": 0.35, "expired": 0.2},
)
_LIFETIME_S: Final = 600
_APPROVAL_LIFETIME_S: Final = 36_000
_BUSY_MS: Final = 100_000
"""A run without a wait for a person takes about this long at most: well below its lifetime."""
_LATE_CHARS: Final = 6_000
_MAX_EXTRA_INDEX: Final = 3
_STEP: Final = "thread.run.step."


class Run:
    """One run. `events()` emits it; `now` is its clock in milliseconds.

    `silent`: the ending, by its deadline, of a step without further events; known once all events were emitted.
    """

    def __init__(self, parameters: Parameters, rng: Random, texts: Texts, mixes: Mixes, start_ms: int) -> None:
        self.parameters, self.rng, self.texts, self._mixes = parameters, rng, texts, mixes
        self.now: float = start_ms
        self.dialect = mixes.dialects.pick(rng)
        self.id = new_id(rng, "run_")
        self.thread_id = new_id(rng, "thread_")
        self.assistant_id = f"asst_{rng.getrandbits(8):024x}"
        self.created_at = start_ms // 1000
        self.expires_at = self.created_at + (1800 if self.dialect == "azure" and rng.random() < 0.3 else _LIFETIME_S)
        self.object_type = "thread.run.step"
        if self.dialect == "azure" and rng.random() < 0.3:
            self.object_type = "assistant.run.step"
        elif self.dialect == "lookalike" and rng.random() < 0.5:
            self.object_type = ""
        self.vendor = {"sequence": (1 << 63) + rng.getrandbits(16), "weights": [0.1, 1e16, 1.0], "名": "é\u2028"}
        self.metadata = {"tenant": self.texts.piece().text} if rng.random() < 0.5 else {}
        self.key = (self.id if rng.random() < 0.7 else self.thread_id).encode()
        self.latest_step_id = self.id
        self.silent: Ending | None = None
        self._plan_shape()

    def _plan_shape(self) -> None:
        """Plan the course of the run before it begins."""
        d, rng = self.parameters, self.rng
        steps = rng.randint(1, 2 * d.steps - 1)
        fate = rng.random()
        known_deadline = self.dialect != "lookalike"
        self._hung = known_deadline and fate < d.hung
        self._interrupted = d.hung <= fate < d.hung + d.interrupted
        self._midstream = rng.random() < d.midstream
        self._approval_at = rng.randrange(steps) if known_deadline and rng.random() < d.approvals else -1
        # On a step that the run's end expires it would be open whether the name misled: not generated.
        self.renames_deadline = not known_deadline and not self._interrupted and rng.random() < 0.3
        self._run_end = _RUN_ENDS.pick(rng) if self._interrupted else "completed"
        self._steps = 0 if self._interrupted and rng.random() < 0.1 else steps
        self._open_at_end = 0
        if self._interrupted and self._steps:
            self._open_at_end = min(self._steps, rng.choice((1, 1, 2, 3)))
        events = steps * (1.5 * d.deltas * 3 + d.chatter + 24)
        self._pace_ms = min(80.0, _BUSY_MS / events)
        self._wait_ms = min(4000.0, _BUSY_MS / steps)

    # The run's clock

    def _tick(self) -> int:
        self.now += self.rng.random() * 2 * self._pace_ms
        return int(self.now)

    # The run as a whole

    def events(self) -> Iterator[Event]:
        """Yield the events of the run."""
        if not self._midstream:
            yield self._run_event("created", "queued")
            yield self._run_event("queued", "queued")
            yield self._run_event("in_progress", "in_progress")
        ended = self._steps - self._open_at_end - self._hung
        for number in range(ended):
            yield from self._ended_step(number)
        if self._hung:
            yield from self._silent_step(ended)
            return
        still_open = []
        for _ in range(self._open_at_end):
            step = self._new_step()
            yield from self._opening(step)
            yield from self._deltas(step)
            still_open.append(step)
        yield from self._close(still_open)
        yield Event(int(self.now), Kind.STREAM_END, "done", "[DONE]")

    def _ended_step(self, number: int) -> Iterator[Event]:
        waits = number == self._approval_at
        step = self._new_step("mcp" if waits and self.dialect == "azure" else "function" if waits else "")
        if number == 0 and self._midstream:
            yield from self._joined_late(step)
            return
        yield from self._opening(step)
        if step.type == "message_creation":
            yield from self._chatter(step)
        yield from self._deltas(step)
        if waits:
            yield from self._approval(step)
        elif step.tool in STREAMED and self.rng.random() < 0.5:
            yield from self._submission()
        yield from self._end(step)

    def _silent_step(self, number: int) -> Iterator[Event]:
        """A step after which nothing more is heard of the run: it ends by its deadline."""
        step = self._new_step()
        yield from self._opening(step)
        yield from self._deltas(step)
        if number == self._approval_at:
            yield self._extend(step)
            yield self._run_event("requires_action", "requires_action")
        whole = step.object([call.streamed for _, call in step.calls])
        self.silent = Ending(
            step, 0, snapshot_of(whole | {"status": "expired", "expired_at": self.expires_at}), "deadline"
        )

    # One step

    def _new_step(self, tool: str = "") -> Step:
        step = Step(self, tool or self._mixes.tools[self.dialect].pick(self.rng))
        self.latest_step_id = step.id
        if step.type == "tool_calls":
            count = self.rng.choice((1, 1, 1, 2, 3))
            low, high = self.parameters.deltas // 2, self.parameters.deltas + self.parameters.deltas // 2
            index = self._gap()
            for _ in range(count):
                call = plan_call(self.rng, self.texts, step.tool, self.rng.randint(low, high) // count)
                step.calls.append((index, call))
                index += 1 + self._gap()
        return step

    def _gap(self) -> int:
        """Number of indexes that are left out before the next call."""
        d = self.parameters.disorder
        return self.rng.randint(0, _MAX_EXTRA_INDEX) if d and self.rng.random() < d else 0

    def _opening(self, step: Step) -> Iterator[Event]:
        step.first_word = data = text_of(step.object([]))
        bare = bool(self.object_type)
        yield Event(self._tick(), Kind.CREATED, _STEP + "created", data, bare=bare)
        yield Event(self._tick(), Kind.PROGRESS, _STEP + "in_progress", data, bare=bare)

    def _deltas(self, step: Step) -> Iterator[Event]:
        rng, d = self.rng, self.parameters
        queues = [[(index, part) for part in call.parts] for index, call in step.calls]
        if len(queues) > 1 and d.disorder and rng.random() < d.disorder:
            parts = list(_mixed(rng, queues))
        else:
            parts = [part for queue in queues for part in queue]
        garbage = d.garbage
        for index, part in parts:
            yield self._delta(step, f'{{"index":{index},{part}}}')
            if garbage and rng.random() < garbage:
                yield self._refused_delta(step, index)

    def _delta(self, step: Step, entries: str) -> Event:
        # No run id, no time, no sequence: that is how it comes.
        return Event(
            self._tick(),
            Kind.DELTA,
            _STEP + "delta",
            f'{{"id":"{step.id}","object":"thread.run.step.delta","delta":{{"step_details":'
            f'{{"type":"tool_calls","tool_calls":[{entries}]}}}}}}',
            True,
        )

    def _refused_delta(self, step: Step, index: int) -> Event:
        """A delta that must be refused whole, its good entry with the bad one."""
        rng = self.rng
        good = f'{{"index":{index},"type":"function","function":{{"arguments":"spoilt"}},"arguments":"spoilt"}}'
        if rng.random() < 0.3:
            data = (
                f'{{"id":"{step.id}","object":"thread.run.step.delta","delta":{{"step_details":'
                f'{{"type":"message_creation","message_creation":{{"message_id":"msg_spoilt"}}}}}}}}'
            )
            return Event(int(self.now), Kind.REFUSED, _STEP + "delta", data, bare=True, reason="type_changed")
        bad = rng.choice(('"index":-1,', '"index":1024,', '"index":"0",', '"index":null,', '"index":0.5,', ""))
        entry = f'{{{bad}"type":"function","function":{{"arguments":"spoilt"}}}}'
        entries = entry if rng.random() < 0.5 else f"{good},{entry}"
        return self._delta(step, entries)._replace(kind=Kind.REFUSED, reason="bad_index")

    def _chatter(self, step: Step) -> Iterator[Event]:
        """Events of the message of a message step, which the worker ignores."""
        message = f'{{"id":"{step.message_id}","object":"thread.message'
        yield Event(self._tick(), Kind.IGNORED, "thread.message.created", f'{message}","status":"in_progress"}}')
        for _ in range(self.parameters.chatter):
            text = self.texts.piece().escaped
            yield Event(
                self._tick(),
                Kind.IGNORED,
                "thread.message.delta",
                f'{message}.delta","delta":{{"content":[{{"index":0,"type":"text","text":{{"value":"{text}"}}}}]}}}}',
            )
        yield Event(self._tick(), Kind.IGNORED, "thread.message.completed", f'{message}","status":"completed"}}')

    def _submission(self) -> Iterator[Event]:
        """The caller runs the tools: one stream ends, another begins, the step crosses both."""
        yield self._run_event("requires_action", "requires_action")
        yield Event(int(self.now), Kind.STREAM_END, "done", "[DONE]")
        self.now += self.rng.random() * self._wait_ms

    def _approval(self, step: Step) -> Iterator[Event]:
        """Wait for a person's approval: the deadline moves, and hours pass."""
        yield self._extend(step)
        if self._says_it_again():
            # With the old deadline: it must not come back.
            yield self._again(Kind.CREATED, "created", step.first_word)
        yield self._run_event("requires_action", "requires_action")
        yield Event(int(self.now), Kind.STREAM_END, "done", "[DONE]")
        self.now += self.rng.randint(3_600_000, 8 * 3_600_000)

    def _extend(self, step: Step) -> Event:
        self.expires_at = self.created_at + _APPROVAL_LIFETIME_S
        data = text_of(step.object([]))
        return Event(self._tick(), Kind.PROGRESS, _STEP + "in_progress", data, bare=bool(self.object_type))

    # The end of a step

    def _end(self, step: Step) -> Iterator[Event]:
        rng, d = self.rng, self.parameters
        status = "completed" if self.renames_deadline else _ENDS.pick(rng)
        at_ms = self._tick()
        whole, sent = self._last_word(step, status, at_ms // 1000)
        name = status
        if d.disagree and rng.random() < d.disagree:
            name = rng.choice([s for s in ("in_progress", "completed", "failed", "cancelled") if s != status])
            step.anomalies.add("status_disagrees")
        if self._says_it_again():
            yield self._again(Kind.CREATED, "created", step.first_word)
        yield self._end_event(step, name, at_ms, sent, Ending(step, 0, snapshot_of(whole)))
        if step.tool == "mcp" and d.late_output and rng.random() < d.late_output:
            yield self._late_output(step, whole)
        if self._says_it_again():
            yield self._again(Kind.END, status, text_of(sent))
        if self._says_it_again():
            yield self._again(Kind.CREATED, "created", step.first_word)
        if d.illegal and rng.random() < d.illegal:
            yield self._illegal(sent)

    def _says_it_again(self) -> bool:
        return self.parameters.duplicates > 0 and self.rng.random() < self.parameters.duplicates

    def _again(self, kind: Kind, name: str, data: str) -> Event:
        return Event(self._tick(), kind, _STEP + name, data, alone=True, again=True)

    def _end_event(self, step: Step, name: str, at_ms: int, sent: dict[str, Any], ending: Ending) -> Event:
        bare = bool(self.object_type) and name == sent["status"]
        return Event(at_ms, Kind.END, _STEP + name, text_of(sent), bare=bare, endings=(ending,))

    def _last_word(self, step: Step, status: str, at: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The whole step at its end, and the object that is sent (which may leave out known fields)."""
        rng = self.rng
        whole = step.object([call.final for _, call in step.calls]) | {"status": status}
        if status != "expired" or rng.random() < 0.5:
            whole[f"{status}_at"] = at
        if status == "failed":
            whole["last_error"] = {"code": rng.choice(("server_error", "tool_user_error")), "message": "It went wrong."}
        if self.dialect != "lookalike":
            whole["usage"] = _usage(rng)
        if self.renames_deadline:
            step.anomalies.add("expired_at_disagrees")
        sent = whole | {"step_details": step.details([call.sent for _, call in step.calls])}
        way = rng.random()
        if way < 0.1 and self.dialect == "openai":
            # As in lists of steps: the ending object may remove the deadline.
            whole["expires_at"] = sent["expires_at"] = None
        elif way < 0.2 and self.dialect == "azure":
            # Nulls that must not erase known values.
            sent |= {"run_id": None, "thread_id": None, "assistant_id": None, "created_at": None, "type": None}
        elif way < 0.25 and self.dialect == "azure":
            sent["step_details"] = None
            whole["step_details"] = step.details([call.streamed for _, call in step.calls])
        return whole, sent

    def _late_output(self, step: Step, whole: dict[str, Any]) -> Event:
        """The output of an MCP call comes in one large delta after the end (recorded on one service)."""
        position = self.rng.randrange(len(step.calls))
        index, _ = step.calls[position]
        output = self.texts.long(_LATE_CHARS)
        calls = list(whole["step_details"]["tool_calls"])
        calls[position] = calls[position] | {"output": output}
        late = self._delta(step, text_of({"index": index, "type": "mcp", "output": output}))
        amended = whole | {"step_details": step.details(calls)}
        return late._replace(endings=(Ending(step, 1, snapshot_of(amended)),))

    def _illegal(self, sent: dict[str, Any]) -> Event:
        """A status that may not follow the end."""
        others = [s for s in ("in_progress", "completed", "failed", "cancelled", "expired") if s != sent["status"]]
        status = self.rng.choice(others)
        data = text_of(sent | {"status": status, "metadata": {"spoilt": "yes"}})
        bare = bool(self.object_type)
        return Event(self._tick(), Kind.REFUSED, _STEP + status, data, bare=bare, reason="illegal_transition")

    def _joined_late(self, step: Step) -> Iterator[Event]:
        """A step whose first events are missing: the rest is published with an anomaly."""
        rng = self.rng
        step.anomalies.add("joined_midstream")
        status = "completed" if self.renames_deadline else _ENDS.pick(rng)
        way = rng.random()
        if way < 0.4:
            data = text_of(step.object([]))
            # Named, never bare: a bare object in progress would open the step as `created` does.
            yield Event(self._tick(), Kind.PROGRESS, _STEP + "in_progress", data)
            yield from self._deltas(step)
        elif way < 0.8 and len(step.calls) == 1 and step.tool in STREAMED and len(step.calls[0][1].texts) > 1:
            yield from self._tail(step)
        else:
            step.calls = [(i, call._replace(sent=call.final)) for i, (_, call) in enumerate(step.calls)]
        at_ms = self._tick()
        whole = step.object([call.final for _, call in step.calls]) | {"status": status}
        if status != "expired":
            whole[f"{status}_at"] = at_ms // 1000
        if self.renames_deadline:
            step.anomalies.add("expired_at_disagrees")
        sent = whole | {"step_details": step.details([call.sent for _, call in step.calls])}
        yield self._end_event(step, status, at_ms, sent, Ending(step, 0, snapshot_of(whole)))

    def _tail(self, step: Step) -> Iterator[Event]:
        """The last deltas of a call whose first are missing, its id and name among them."""
        index, call = step.calls[0]
        lost = self.rng.randint(0, len(call.texts) - 1)
        rest = "".join([p.text for p in call.texts[lost:]])
        body = "function" if call.tool == "openapi" else call.tool
        flat = call.tool == "mcp"
        stated = call.sent if flat else call.sent[body]
        if stated.get("arguments") is None:
            kept = {"arguments": rest}
            step.calls[0] = index, call._replace(final=call.final | (kept if flat else {body: call.final[body] | kept}))
        elif lost:
            step.anomalies.add("fold_divergence")
        for part in call.parts[1 + lost :]:
            yield self._delta(step, f'{{"index":{index},{part}}}')

    # The end of the run

    def _close(self, still_open: list[Step]) -> Iterator[Event]:
        rng, d, status = self.rng, self.parameters, self._run_end
        if status == "cancelled":
            yield self._run_event("cancelling", "cancelling")
        at_ms = self._tick()
        own = {f"{status}_at": at_ms // 1000 - 1} if status in ("completed", "failed", "cancelled") else {}
        error = {"code": "rate_limit_exceeded", "message": "Slow down."} if status == "failed" else None
        ending = {"expires_at": None, "last_error": error, **own}
        name = status
        if status == "incomplete" and rng.random() < 0.5:
            name = "completed"
        endings = tuple(
            self._inferred(step, status, own.get(f"{status}_at", at_ms // 1000), error) for step in still_open
        )
        alone = bool(endings) and not own
        yield Event(
            at_ms,
            Kind.RUN,
            f"thread.run.{name}",
            text_of(self._object(status) | ending),
            bare=name == status,
            alone=alone,
            endings=endings,
        )
        if status not in ("failed", "cancelled", "expired"):
            return  # an orphaned step that ends after all: whether its anomaly stays is open
        for step in still_open:
            if d.overruled and rng.random() < d.overruled:
                yield from self._overrule(step)
        if own and d.stragglers and rng.random() < d.stragglers:
            yield self._straggler(status, own[f"{status}_at"], error)

    def _inferred(self, step: Step, run_status: str, at: int, error: dict[str, str] | None) -> Ending:
        whole = step.object([call.streamed for _, call in step.calls])
        return Ending(step, 0, self._ended_by_run(step, whole, run_status, at, error), "run")

    def _ended_by_run(
        self, step: Step, whole: dict[str, Any], run_status: str, at: int, error: dict[str, str] | None
    ) -> dict[str, Any]:
        status = run_status
        if run_status in ("completed", "incomplete"):
            status = "expired"
            step.anomalies.add("orphaned_by_run")
        snapshot = snapshot_of(whole | {"status": status, f"{status}_at": at})
        if error:
            snapshot["last_error"] = error
        return snapshot

    def _overrule(self, step: Step) -> Iterator[Event]:
        """The real end of a step that the run's end had ended: it wins, whatever its status."""
        status = _ENDS.pick(self.rng)
        at_ms = self._tick()
        whole, sent = self._last_word(step, status, at_ms // 1000)
        yield self._end_event(step, status, at_ms, sent, Ending(step, 1, snapshot_of(whole)))

    def _straggler(self, status: str, at: int, error: dict[str, str] | None) -> Event:
        """A step created after the end of its run ends at once."""
        step = self._new_step()
        step.anomalies.add("after_run_ended")
        whole = step.object([])
        ending = Ending(step, 0, self._ended_by_run(step, whole, status, at, error), "run")
        return Event(self._tick(), Kind.CREATED, _STEP + "created", text_of(whole), alone=True, endings=(ending,))

    # Run objects

    def _run_event(self, name: str, status: str) -> Event:
        return Event(self._tick(), Kind.IGNORED, f"thread.run.{name}", text_of(self._object(status)), bare=True)

    def _object(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": self.created_at,
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "status": status,
            "started_at": self.created_at,
            "expires_at": self.expires_at,
            "cancelled_at": None,
            "failed_at": None,
            "completed_at": None,
            "required_action": None,
            "last_error": None,
            "model": "gpt-4o-mini",
            "instructions": None,
            "tools": [{"type": "code_interpreter"}],
            "metadata": {},
            "usage": None,
        }


class Mixes:
    """The mixes of the parameters, ready to draw from."""

    def __init__(self, parameters: Parameters) -> None:
        self.dialects = Mix(DIALECTS, parameters.dialects)
        every = Mix(TOOLS, parameters.tools)
        self.tools: dict[str, Mix] = {}
        for dialect, spoken in _SPOKEN.items():
            narrowed = Mix(TOOLS, {tool: w for tool, w in parameters.tools.items() if tool in spoken})
            self.tools[dialect] = narrowed or every


def _mixed(rng: Random, queues: list[list[tuple[int, str]]]) -> Iterator[tuple[int, str]]:
    """The entries of several calls in a random order that keeps each call's own."""
    waiting = [iter(queue) for queue in queues]
    while waiting:
        which = rng.randrange(len(waiting))
        part = next(waiting[which], None)
        if part is None:
            waiting.pop(which)
        else:
            yield part


def _usage(rng: Random) -> dict[str, Any]:
    prompt, completion = rng.randint(20, 4000), rng.randint(1, 400)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_token_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
