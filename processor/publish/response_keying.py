"""Key and event ids of Responses events: every event of a response under the id of its response.

Only lifecycle events (`response.created`, ...) name the response; deltas and items do not. So an event without a name
belongs to the response that its stream speaks of, where several are open to the one that its item or its sequence
number fits, and where none is known yet it waits until one is named. What fits several is refused, never guessed.

The id of an event is `<key>:<sequence_number>`: the numbers of a response are its own, and one that is read again
(`starting_after`) has the same. Events without a number get a digest of what stood before them and of themselves, and
so does one whose number another event had: a gateway that writes the same number on all has none that says anything.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.publish import outgoing
from processor.publish.event_fields import RESPONSE_ENDS, ResponseEvent, Retrieved
from processor.publish.outgoing import (
    HEADER_EVENT_ID,
    HEADER_ORIGIN,
    HEADER_RUN_ID,
    HEADER_SEQUENCE,
    Outgoing,
    Refusal,
    remember,
)
from processor.publish.response_numbers import SequenceNumbers

ORIGIN_RETRIEVED: Final = b"retrieved"
"""Header `runstep-origin` of a record that a retrieved response object became."""
UNNAMED: Final = "resp_unnamed_"
"""A stand-in key begins so: the stream it is of never names its response."""
TOO_LONG: Final = "resp_long_"
"""A stand-in key begins so: the response has an id that is longer than the worker takes."""

_CREATED: Final = "response.created"
_ENDS: Final = frozenset(f"response.{status}" for status in (*RESPONSE_ENDS, "done"))
_MAX_CONTENTS: Final = 65_536
"""An event of a higher number is not told from another one that has its number, too."""
_AMBIGUOUS: Final = "which of the open responses it belongs to is not said"


@dataclass(slots=True, eq=False)
class _Response:
    """One response, over all the streams that spoke of it."""

    key: str
    created_at: Any = None
    model: str | None = None
    numbers: SequenceNumbers = field(default_factory=SequenceNumbers)
    contents: array[int] = field(default_factory=lambda: array("I"))
    """By number, a checksum of the event that has it; 0: not known."""
    chain: bytes = b""
    position: int = 0
    first: bytes = b""
    """The id of the first event, where none has a number: with it the stream begins anew."""
    unnumbered: dict[str, None] = field(default_factory=dict)  # ids already sent
    ended: bool = False
    is_over: bool = False
    """Its own numbered end came: no event of it has a higher number."""
    has_rotated: bool = False
    repeats: int = 0

    def takes(self, event: ResponseEvent, number: int) -> bool:
        """Note the number of an event; False if another event has it."""
        contents, content = self.contents, self._content_of(event)
        if self.numbers.add(number):
            if number < _MAX_CONTENTS:
                contents.extend([0] * (number + 1 - len(contents)))
                contents[number] = content
            return True
        return number >= len(contents) or contents[number] in (0, content)

    def may_have(self, event: ResponseEvent) -> bool:
        """Whether an event that may be of another response, too, can be one of this by its number."""
        number, highest, contents = event.number, self.numbers.highest, self.contents
        if number is None or highest is None or self.unnumbered:  # or its numbers say nothing
            return True
        if self.numbers.holds(number):
            return number >= len(contents) or contents[number] in (0, self._content_of(event))
        return number < highest or not self.is_over

    def _content_of(self, event: ResponseEvent) -> int:
        if event.item_id is None or self.has_rotated:
            return event.content
        return crc32(event.item_id.encode("utf-8", "replace"), event.content) or 1

    def is_at_most_next(self, number: int | None) -> bool:
        """Whether an event with this number repeats one that was seen, or follows the highest."""
        highest = self.numbers.highest
        return number is not None and highest is not None and number <= highest + 1

    def is_next(self, number: int | None) -> bool:
        """Whether an event with this number follows the highest seen."""
        highest = self.numbers.highest
        return number is not None and highest is not None and number == highest + 1


@dataclass(slots=True)
class KnownResponses:
    """The responses that the streams of a process spoke of, bounded."""

    named: dict[str, _Response] = field(default_factory=dict)
    """By each id that one was called."""
    items: dict[str, _Response | None] = field(default_factory=dict)
    """By item id; None: several responses have such an item."""


@dataclass(slots=True)
class _Stream:
    """State of one HTTP response, or of one input without end marks."""

    sequential: bool
    responses: list[_Response] = field(default_factory=list)  # the one last named is last
    held: list[tuple[int, ResponseEvent]] = field(default_factory=list)

    def open(self) -> list[_Response]:
        return [response for response in self.responses if not response.ended]

    def speak_of(self, response: _Response) -> None:
        if response in self.responses:
            self.responses.remove(response)
        self.responses.append(response)
        del self.responses[: -outgoing.MAX_HELD_EVENTS]


class ResponseKeyer:
    """Gives every event of the Responses API the key of its response, and its event id.

    Ids may rotate: one gateway changes `response.id` from event to event. The first one then stays the key. A new id is
    a rotated one where the stream has one open response and the event goes on with its number, or has its time of
    creation and model.

    Args:
        refusals: takes what cannot be published.
        notes: takes what a person should know.
        known: the responses that any stream spoke of.
    """

    def __init__(self, refusals: list[Refusal], notes: list[str], known: KnownResponses) -> None:
        self._refusals = refusals
        self._notes = notes
        self._named = known.named
        self._items = known.items
        self._stream = _Stream(sequential=False)

    @property
    def is_speaking(self) -> bool:
        """Whether the current stream has named a response."""
        return bool(self._stream.responses or self._stream.held)

    def take(self, number: int, event: ResponseEvent, *, sequential: bool) -> list[Outgoing]:
        """One event in, the `number`-th of all; the records that can be sent now, in order.

        Args:
            sequential: a new response in this stream means that the one before it is over or was cut, as in one HTTP
                response; else several may interleave.
        """
        stream = self._stream
        stream.sequential = sequential
        if event.response_id is not None:
            found: _Response | str | None = self._by_name(number, event, event.response_id)
        else:
            found = self._by_stream(event)
        if isinstance(found, str):
            self._refusals.append(Refusal(number, f"{event.type:.60}: {found}"))
            return []
        if found is None:
            stream.held.append((number, event))
            return self._flush_held() if len(stream.held) > outgoing.MAX_HELD_EVENTS else []
        out = self._release(found, event) if stream.held else []
        stream.speak_of(found)
        return out + self._outgoing(found, event)

    def take_retrieved(self, event: Retrieved) -> list[Outgoing]:
        """A response object: one record that ends what is open of its response."""
        response = self._known(event.response_id)
        response.ended = True
        key = response.key.encode()
        headers = (
            (HEADER_EVENT_ID, key + b":" + ORIGIN_RETRIEVED),
            (HEADER_RUN_ID, key),
            (HEADER_ORIGIN, ORIGIN_RETRIEVED),
        )
        return [Outgoing(key, event.value, headers)]

    def end_stream(self) -> list[Outgoing]:
        """End the HTTP response or the input: send what was held, and note what is missing."""
        out = self._flush_held()
        for response in self._stream.responses:
            self._note_end(response)
        self._stream = _Stream(self._stream.sequential)
        return out

    def use(self, response_id: str) -> None:
        """Set the response of the next stream, which does not name it."""
        self._stream.speak_of(self._known(response_id))

    # --- which response ---

    def _known(self, name: str) -> _Response:
        """The response of this id."""
        response = self._named.get(name)
        if response is None:
            response = _Response(self._key_for(name))
            remember(self._named, name, response)
        return response

    def _key_for(self, name: str) -> str:
        """The key of a new response: its id, or a stand-in that is the same for the same id."""
        key = _key_of(name)
        if key != name:
            self._notes.append(
                f"{name:.80}...: the id has {len(name)} characters, the worker takes {MAX_RESPONSE_ID};"
                f" the key of this response is {key}"
            )
        return key

    def _by_name(self, number: int, event: ResponseEvent, name: str) -> _Response:
        response = self._named.get(name)
        if response is None and event.type != _CREATED:
            response = self._rotated(event)
        if response is None:
            response = _Response(self._key_for(name), event.created_at, event.model)
        elif event.type == _CREATED:
            self._begin_again(number, response, event)
        if response.created_at is None:
            response.created_at, response.model = event.created_at, event.model
        response.has_rotated = response.has_rotated or _key_of(name) != response.key
        remember(self._named, name, response)
        return response

    def _rotated(self, event: ResponseEvent) -> _Response | None:
        """The open response that an event with an id never heard goes on with."""
        candidates = self._stream.open()
        if not self._stream.responses:
            return self._resumed(event)
        if self._stream.sequential:
            candidates = candidates[-1:]
        alike = [
            response
            for response in candidates
            if event.created_at is not None and (event.created_at, event.model) == (response.created_at, response.model)
        ]
        if len(candidates) == 1:
            only = candidates[0]
            says_nothing = event.created_at is None and event.number is None
            is_given = only.created_at is None and only.numbers.highest is None  # by its name alone
            return only if alike or says_nothing or is_given or only.is_next(event.number) else None
        following = [response for response in alike if response.is_next(event.number)]
        return following[0] if len(following) == 1 else None

    def _resumed(self, event: ResponseEvent) -> _Response | None:
        """The response of another stream that this one goes on with, though its id has rotated."""
        number = self._stream.held[0][1].number if self._stream.held else event.number
        found = {
            response.key: response
            for response in self._named.values()
            if not response.ended
            and event.created_at is not None
            and (event.created_at, event.model) == (response.created_at, response.model)
            and (response.is_next(number) or (response.has_rotated and response.is_at_most_next(number)))
        }
        return next(iter(found.values())) if len(found) == 1 else None

    def _begin_again(self, number: int, response: _Response, event: ResponseEvent) -> None:
        """`response.created` of a response that is known: its stream is read again, from its beginning."""
        if response.created_at is not None and response.created_at != event.created_at:
            self._notes.append(
                f"event {number}: {response.key:.80} was created at another time than the response of that id before:"
                " the worker sets it aside while it remembers that one, so give each response an id of its own"
            )
            response.numbers, response.contents, response.unnumbered = SequenceNumbers(), array("I"), {}
            response.created_at, response.model = event.created_at, event.model
            response.ended = response.is_over = False
        elif response in self._stream.responses and not response.ended:
            highest = response.numbers.highest
            at = "" if highest is None else f" after number {highest}"
            self._notes.append(f"event {number}: the stream of {response.key:.80} begins anew{at}; it had been cut")
        response.chain, response.position = b"", 0

    def _by_stream(self, event: ResponseEvent) -> _Response | str | None:
        """The response of an event that does not name it; a text says why none, None that one may be named yet."""
        stream = self._stream
        owner = None if event.item_id is None else self._items.get(event.item_id)
        if not stream.responses:
            return owner if owner is not None and self._goes_on(owner, event) else None
        if stream.sequential:
            current = stream.responses[-1]
            if not current.ended:
                return current
            if owner is not None and self._goes_on(owner, event):
                return owner
            # Behind its end, what cannot be of it is of another stream that goes on: its response is yet to be named.
            fits = not stream.held and (current.may_have(event) or current.is_next(event.number))
            return current if fits else None
        if owner is not None and owner in stream.responses:
            return owner
        candidates = stream.open() or stream.responses[-1:]
        if len(candidates) > 1:
            candidates = [response for response in candidates if response.is_next(event.number)]
        return candidates[0] if len(candidates) == 1 else _AMBIGUOUS

    def _goes_on(self, owner: _Response, event: ResponseEvent) -> bool:
        """Whether a stream that has named no response goes on with one that has such an item.

        Gateways give items of several responses the same id: then the numbers tell, or the events wait for the name.
        """
        first = self._stream.held[0][1] if self._stream.held else event
        if not (owner.may_have(event) and owner.may_have(first)):
            return False
        return not owner.ended or not any(r.is_next(first.number) for r in self._named.values() if not r.ended)

    # --- events that wait for a name ---

    def _release(self, response: _Response, event: ResponseEvent) -> list[Outgoing]:
        """Events that waited, now that a response is named: they are its own, unless it only begins here."""
        last = self._stream.held[-1][1].number
        ends = self._stream.sequential and event.type in _ENDS  # it is the end of what waited, whatever its number
        begins_anew = last is not None and event.number is not None and event.number < last and not ends
        if event.type == _CREATED or begins_anew:
            return self._flush_held()
        held, self._stream.held = self._stream.held, []
        return [record for _, waiting in held for record in self._outgoing(response, waiting)]

    def _flush_held(self) -> list[Outgoing]:
        """Events that waited in vain for a name: they get the key of the response they fit, or a stand-in key."""
        held, self._stream.held = self._stream.held, []
        if not held:
            return []
        first = held[0][1]
        fitting = {r.key: r for r in self._named.values() if not r.ended and r.is_next(first.number)}
        if len(fitting) == 1:
            (response,) = fitting.values()
        else:
            stand_in = UNNAMED + hashlib.blake2b(first.value, digest_size=16).hexdigest()
            response = self._named.get(stand_in) or _Response(stand_in)
            response.chain, response.position = b"", 0
            remember(self._named, stand_in, response)
            self._notes.append(
                f"event {held[0][0]}: no event names the response of this stream; its key is {stand_in}"
                " (name it with --response)"
            )
        self._stream.speak_of(response)
        return [record for _, event in held for record in self._outgoing(response, event)]

    # --- records ---

    def _outgoing(self, response: _Response, event: ResponseEvent) -> list[Outgoing]:
        if event.item_id is not None:
            known = self._items.get(event.item_id, response)
            remember(self._items, event.item_id, response if known is response or _is_over(known) else None)
        if event.type in _ENDS:
            response.ended = True
            response.is_over = response.is_over or event.number is not None
        identity, place = self._identity(response, event)
        response.position += 1
        if identity is None:
            response.repeats += 1
            return []
        key = response.key.encode()
        headers = ((HEADER_EVENT_ID, identity), (HEADER_RUN_ID, key), (HEADER_SEQUENCE, b"%d" % place))
        return [Outgoing(key, event.value, headers)]

    def _identity(self, response: _Response, event: ResponseEvent) -> tuple[bytes | None, int]:
        """The event's id, None if it was sent already; and its number, or its place in the stream."""
        number, known = event.number, response.numbers.count
        if number is not None and response.takes(event, number):
            response.chain = f"{response.key}:{number}".encode()
            return response.chain if response.numbers.count > known else None, number
        start = hashlib.blake2b(response.key.encode() + event.value, digest_size=16).digest()
        if start == response.first and response.numbers.highest is None:
            response.chain, response.position = b"", 0
        response.first = response.first or start
        before = response.chain or response.key.encode()
        response.chain = hashlib.blake2b(before + event.value, digest_size=16).digest()
        identity = response.chain.hex()
        if identity in response.unnumbered:
            return None, response.position
        remember(response.unnumbered, identity, None)
        return identity.encode(), response.position

    def _note_end(self, response: _Response) -> None:
        missing, highest = response.numbers.missing(), response.numbers.highest
        if response.numbers.missing_count > len(response.unnumbered):  # else they may be of those without a number
            self._notes.append(
                f"{response.key:.80}: numbers {missing} are missing; read them again with starting_after, or publish"
                " the retrieved response"
            )
        if response.repeats:
            self._notes.append(f"{response.key:.80}: {response.repeats} events came again and were left out")
            response.repeats = 0
        if not response.ended and not response.key.startswith(UNNAMED):
            after = "" if highest is None else f"starting_after={highest}, or "
            self._notes.append(
                f"{response.key:.80}: the stream ends before its response; go on with {after}publish the response as"
                " `retrieve` answers it"
            )


def _key_of(name: str) -> str:
    if len(name) <= MAX_RESPONSE_ID:
        return name
    return TOO_LONG + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _is_over(response: _Response | None) -> bool:
    return response is not None and response.ended
