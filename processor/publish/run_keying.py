"""Key and event ids of run-step events: every event of a run under the key of its run.

Event ids are a chain: the id of an event is a digest of everything its response said of its run, up to and including
the event. Publishing a recording again therefore gives the same ids. Two equal tokens differ, because what was
said before them differs. And the several HTTP responses of one run (a new one comes after tool outputs are
submitted) cannot collide, because they say different things; two responses that agree byte for byte from the
start are taken for what they then are, a repeat.

Once a response has told that a step was created, the deltas of steps are numbered: the id of the last event that is no
delta, a colon, and which delta since then it is. A worker keeps ids that count up as one range
(`core.run_steps.event_ids`). Two responses that agree up to a creation are the same stream: there a number says as
much as a digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from processor.publish import outgoing
from processor.publish.event_fields import RunEvent
from processor.publish.outgoing import (
    HEADER_EVENT_ID,
    HEADER_RUN_ID,
    HEADER_SEQUENCE,
    Outgoing,
    Refusal,
    remember,
)


@dataclass(slots=True)
class _Chain:
    """Events of one key in one HTTP response: their digest, their number, and the first of them."""

    digest: bytes
    events: int = 0
    first: bytes = b""
    stated: bytes = b""  # the id that the numbers of deltas stand behind; b"" before a step was created
    deltas: int = 0  # since then


@dataclass(slots=True)
class _Response:
    """State of one HTTP response."""

    run: str | None = None
    thread: str | None = None
    mixed: bool = False  # it names more than one run, so "the run of this response" means nothing
    waiting: bool = True  # events that nothing can key are held until a run is named
    held: list[tuple[int, RunEvent]] = field(default_factory=list)
    chains: dict[str, _Chain] = field(default_factory=dict)  # by key


class RunKeyer:
    """Gives every event the key of its run, from what the stream said before.

    A run object is its run; a step or message object carries `run_id` and its own id, which is remembered; a delta has
    only that id. What has neither (`thread.created`, `error`, a delta whose step is not known) belongs to the one
    run of its response, and is held until that is named. Where a response names no run at all, the thread id is the
    key; where it does not name a thread either, the event is refused.
    """

    def __init__(self, refusals: list[Refusal], notes: list[str], run_of: dict[str, str]) -> None:
        self._refusals = refusals
        self._notes = notes
        self._run_of = run_of  # step and message id -> run id
        self._response = _Response()

    def take(self, number: int, event: RunEvent) -> list[Outgoing]:
        """One event in, the `number`-th of all; the records that can be sent now, in order."""
        response = self._response
        if response.thread is None:
            response.thread = event.thread
        run = self._run(event)
        if run is not None:
            released = self._release(run, event.thread) if response.held else []
            return [*released, self._outgoing(number, event, run, run)]
        # A thread begins before its first run, also where the stream is already full of other runs.
        if response.waiting and (not response.mixed or event.kind == "thread"):
            response.held.append((number, event))
            return self._stop_waiting() if len(response.held) > outgoing.MAX_HELD_EVENTS else []
        return self._without_run(number, event)

    def end_response(self) -> list[Outgoing]:
        """End the HTTP response: send what is still held under the key of its thread, or refuse it."""
        out = self._stop_waiting()
        self._response = _Response()
        return out

    def _run(self, event: RunEvent) -> str | None:
        response = self._response
        run = event.run
        if run is not None:
            if response.run is None:
                response.run = run
            elif response.run != run:
                response.mixed = True
            if event.kind != "thread.run" and event.id is not None:
                remember(self._run_of, event.id, run)
            return run
        if event.id is not None and (known := self._run_of.get(event.id)) is not None:
            return known
        if response.mixed or (event.thread is not None and event.thread != response.thread):
            return None
        return response.run

    def _release(self, run: str, thread: str | None) -> list[Outgoing]:
        """Records that waited for a run, now that one is named (on that thread, where both name theirs)."""
        held, self._response.held = self._response.held, []
        out: list[Outgoing] = []
        for number, event in held:
            if thread is None or event.thread is None or event.thread == thread:
                if event.id is not None and event.kind != "thread":
                    remember(self._run_of, event.id, run)
                out.append(self._outgoing(number, event, run, run))
            else:
                self._response.held.append((number, event))
        return out

    def _stop_waiting(self) -> list[Outgoing]:
        self._response.waiting = False
        held, self._response.held = self._response.held, []
        return [record for number, event in held for record in self._without_run(number, event)]

    def _without_run(self, number: int, event: RunEvent) -> list[Outgoing]:
        response = self._response
        thread = event.thread or (None if response.mixed else response.thread)
        if thread is not None:
            return [self._outgoing(number, event, thread, None)]
        what = f"{event.kind} of {event.id}" if event.id else event.kind
        why = (
            "no earlier event says its run, and this stream mixes several"
            if response.mixed
            else "nothing to key it by: neither a run nor a thread is named in this stream"
        )
        self._refusals.append(Refusal(number, f"{what:.120}: {why}"))
        return []

    def _outgoing(self, number: int, event: RunEvent, key: str, run: str | None) -> Outgoing:
        chains = self._response.chains
        chain = chains.get(key)
        if chain is not None and chain.first == event.value and event.kind in ("thread", "thread.run"):
            # The same beginning again: the stream was cut and begun anew. With the ids of the first time its events
            # are told from new ones.
            if chain.events > 1:
                self._notes.append(
                    f"event {number}: the stream of run {key:.80} begins anew after {chain.events} events; what it"
                    " repeats has the same event ids, so the worker ignores it"
                )
            chain = None
        if chain is None:
            chain = _Chain(key.encode(), first=event.value)
        chain.digest = hashlib.blake2b(chain.digest + event.value, digest_size=16).digest()
        headers = [(HEADER_EVENT_ID, _identity(chain, event)), (HEADER_SEQUENCE, b"%d" % chain.events)]
        chain.events += 1
        remember(chains, key, chain)
        if run is not None:
            headers.insert(1, (HEADER_RUN_ID, run.encode()))
        return Outgoing(key.encode(), event.value, tuple(headers))


def _identity(chain: _Chain, event: RunEvent) -> bytes:
    """The id of an event that the chain's digest holds already."""
    if event.kind == "thread.run.step.delta" and chain.stated:
        chain.deltas += 1
        return b"%b:%d" % (chain.stated, chain.deltas)
    identity = chain.digest.hex().encode()
    if not event.kind.endswith(".delta") and (chain.stated or event.name == "thread.run.step.created"):
        chain.stated, chain.deltas = identity, 0
    return identity
