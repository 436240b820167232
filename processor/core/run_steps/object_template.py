"""Object templates: the bytes around ids, times and counts, the same in all step objects of a producer.

A template makes reading faster and decides no outcome. It is learned from a value that was read in full and folded by
the fast path, and only if the value is read back as the same but for just these places when other texts and numbers
stand in all of them (`_leaves_at`). What matches is cut, not parsed. Nothing matches that needs a JSON escape in the
place of an id, a number in any form but plain digits, or another key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Raw

from processor.core.learned_bytes import LearnedBytes, size_of
from processor.core.run_steps.function_calls import (
    CALL_PIECES,
    CALL_PLACES,
    Call,
    CallsFrame,
    NamedCalls,
    are_functions,
    layout_of,
)
from processor.core.run_steps.object_shape import (
    FIRST_HOLES,
    MOST_HOLES,
    NOWHERE,
    NUMBER,
    PLAIN,
    SPAN,
    TEXT,
    Frame,
    Hole,
    Shape,
    SharedBeginning,
)
from processor.core.run_steps.tool_calls import Gaps, Outlines
from processor.core.run_steps.usual_events import EXPIRES_AT, ExactObject, exact_object
from processor.core.step_state import KEPT_OVER_NULL, SCHEMA_KEYS
from processor.core.wire_types import (
    StatedStep,
    canonical,
    canonical_step,
    exact_delta,
    read_any,
    read_exact_details,
    read_split_step,
)

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_IDS: Final = re.compile(rb'"(?:id|run_id|assistant_id|thread_id|message_id)"\s*:\s*"([ !#-\[\]-~]*)"')
_NAMES: Final = re.compile(rb'"(?:id|name)"\s*:\s*"([ !#-\[\]-~]*)"')
_ARGUMENTS: Final = re.compile(rb'"arguments"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NUMBERS: Final = re.compile(rb":\s*([1-9][0-9]{0,14})(?=\s*[,}])")
_CONSTANT_TEXTS: Final = frozenset({"object", "type", "status"})
"""Texts that are the same in all objects of a template; another one would make a template of its own each time."""
_NOTHING: Final = b""
_NULL: Final = Raw(b"null")
_MARK: Final = "~%d~"
_FIRST_NUMBER: Final = 900_000_000_000_001
_DETAILS: Final = "step_details"
_FIELDS: Final = StatedStep.__struct_fields__
_SCHEMA_BITS: Final = sum(1 << n for n, name in enumerate(_FIELDS) if name in SCHEMA_KEYS)
_UNSET: Final = UNSET
_CALL: Final = ("delta", "step_details", "tool_calls", 0)

_MESSAGE: Final = (_DETAILS, "message_creation", "message_id")
_OF_CALL: Final = (("id",), ("function", "name"), ("function", "arguments"))
"""What a `CallsFrame` has places for, of each call."""
_NAMED_ATTEMPTS: Final = 16
_MOST_CALLS: Final = 8
_MOST_NAME_BYTES: Final = 64
"""Of the name of a function that is kept for the next call."""
_MAX_FRAMES: Final = 16
"""Of how many calls, and in how many ways, it is known what is published; more are put together call by call."""
_PLACE_BYTES: Final = 8
"""Of a piece that another list holds, too."""
_MAX_SHARES: Final = 256
"""How often it is learned anew how ends begin, which is where ids have other lengths than before."""
_OF_BEGIN: Final = (("id",), ("run_id",), ("expires_at",), _MESSAGE)
"""What is asked for of an object that begins a step; all of it is kept as it stands."""

Path = tuple[str | int, ...]


# --- the templates -----------------------------------------------------------------------------------------------


class BeginTemplate:
    """Template of objects that begin a step.

    `absent`: bits of the fields that none of them names; `*_at`: which hole, or -1; `data_at`: where the data begins.
    """

    __slots__ = ("absent", "data_at", "expires_at", "id_at", "message_at", "number_at", "run_at", "shape", "type")

    def __init__(self, shape: Shape, event: ExactObject, places: list[Path], data_at: int) -> None:
        told = event.stated
        self.data_at = data_at
        assert told.type is not None  # as it `opens_exactly`
        self.shape, self.type = shape, told.type
        self.absent = _unset_bits(event.told)
        self.id_at, self.run_at = _place(places, "id"), _place(places, "run_id")
        self.message_at = _place(places, *_MESSAGE)
        self.number_at = _place(places, "expires_at")
        self.expires_at: Any = event.told[EXPIRES_AT] if self.number_at < 0 else None
        """What all of them say, if it is no hole."""


class CallTemplate:
    """Template of deltas that begin a function call, the only one that they name, at this index."""

    __slots__ = (
        "_name",
        "_quoted_name",
        "arguments_at",
        "call_at",
        "id_at",
        "index",
        "kind",
        "name_at",
        "says_output",
        "shape",
    )

    def __init__(self, shape: Shape, places: list[Path], index: int, kind: str, *, says_output: bool) -> None:
        self.shape, self.index, self.kind, self.says_output = shape, index, kind, says_output
        self.id_at, self.call_at = _place(places, "id"), _place(places, *_CALL, "id")
        self.name_at = _place(places, *_CALL, "function", "name")
        self.arguments_at = _place(places, *_CALL, "function", "arguments")
        self._name = self._quoted_name = b""

    def quoted(self, name: bytes) -> bytes:
        """A name as JSON; mostly that of the call before, and then the same object."""
        if name == self._name and self._quoted_name:
            return self._quoted_name
        quoted = b'"' + name + b'"'
        if len(name) <= _MOST_NAME_BYTES:
            self._name, self._quoted_name = name, quoted
        return quoted


class EndTemplate:
    """Template of objects that end a step, and of what is published then: the same pieces in another order.

    `shape.frame` is what is published; `*_at`: where in its pieces what stands, or -1; `*_hole`: in which hole.
    `unsaid`: bits of the fields that none of them names, `absent` those among them that are published as null.
    The details are one of three: they are `left` to the fold by all, in the same words; where they may say anything,
    `says_details`; else they say a message, which stands at `message_at`.
    """

    __slots__ = (
        "_attempts",
        "_details_at",
        "_frame",
        "_frames",
        "_key",
        "_shares",
        "absent",
        "data_at",
        "id_at",
        "id_hole",
        "learned",
        "left",
        "message_at",
        "named",
        "outlines",
        "run_at",
        "run_hole",
        "run_id",
        "says_details",
        "shape",
        "shared",
        "thread_at",
        "thread_hole",
        "thread_id",
        "type",
        "unsaid",
    )

    def __init__(self, shape: Shape, stated: StatedStep[Any], places: list[Path], data_at: int, details_at: int):
        self.shape, self.type, self.data_at = shape, stated.type, data_at
        self.unsaid = _unset_bits(msgspec.structs.astuple(stated))
        self.absent = self.unsaid & _SCHEMA_BITS
        self.id_hole, self.run_hole = _place(places, "id"), _place(places, "run_id")
        self.thread_hole, message_hole = _place(places, "thread_id"), _place(places, *_MESSAGE)
        self.says_details = _place(places, _DETAILS) >= 0
        self.left = not self.says_details and message_hole < 0
        at = [-1 if hole < 0 else shape.frame.spots[hole] for hole in (self.id_hole, self.run_hole, self.thread_hole)]
        self.id_at, self.run_at, self.thread_at = at
        self.message_at = -1 if message_hole < 0 else shape.frame.spots[message_hole]
        self.run_id: Any = None if stated.run_id is _UNSET else stated.run_id
        self.thread_id: Any = None if stated.thread_id is _UNSET else stated.thread_id
        """What all of them say, if it is no hole."""
        self._details_at = details_at
        self.learned = LearnedBytes()
        self.shared: SharedBeginning | None = None
        """With the object that began the step which ended last."""
        self.named: dict[int, NamedCalls] = {}
        """How such objects name function calls, by how many."""
        self.outlines = Outlines()
        """Of trees that such objects end."""
        self._frames: dict[int, CallsFrame] = {}
        """What is published with so many functions, of which these have an output."""
        self._key: i64 = -1
        self._frame: CallsFrame | None = None
        """The one that was taken last."""
        self._attempts = _NAMED_ATTEMPTS
        self._shares = _MAX_SHARES

    def learn_named(self, details: bytes) -> None:
        """Learn from details that such an object had, and that named what was folded."""
        if self._attempts > 0:
            self._attempts -= 1
            found = learn_named(details)
            if found is not None and self.learned.take(found.size()):
                self.named[len(found.kinds)] = found

    def details_in(self, pieces: list[bytes]) -> bytes:
        """The piece of the details, among those that were cut."""
        return pieces[self._details_at]

    def published(self, pieces: list[bytes], details: bytes) -> bytes:
        """The canonical bytes of a step that such an object ends; `details` are not asked for where it says a message.

        `pieces`, which were cut, are changed.
        """
        if self.message_at < 0:
            pieces[self._details_at] = details
        return _NOTHING.join(pieces)

    def frame_of(self, calls: list[Call], outputs: i64) -> CallsFrame | None:
        """Frame of what is published with these calls, of which those in `outputs` say no output.

        None: they are too many, or no functions.
        """
        number: i64 = len(calls)
        key: i64 = number << 8 | outputs
        if number > _MOST_CALLS or not are_functions(calls):
            return None
        if key != self._key:
            found = self._frames.get(key)
            if found is None:
                size = 2 * size_of(layout_of(number, 0)) + _PLACE_BYTES * len(self.shape.frame.blank)
                if len(self._frames) >= _MAX_FRAMES or not self.learned.take(size):
                    return None
                found = self._frames[key] = self._frame_of(number, outputs)
            self._key, self._frame = key, found
        return self._frame

    def _frame_of(self, number: int, outputs: int) -> CallsFrame:
        """Make the frame of what is published, with the pieces of the calls in place of the details."""
        blank, at = self.shape.frame.blank, self._details_at
        inner = layout_of(number, outputs)
        shift = len(inner) - 3
        inner[0] = blank[at - 1] + inner[0]
        inner[-1] += blank[at + 1]
        spots = [spot + shift if spot > at else NOWHERE if spot == at else spot for spot in self.shape.frame.spots]
        begins = range(at - 1, at - 1 + CALL_PIECES * number, CALL_PIECES)
        calls = [begin + place for begin in begins for place in CALL_PLACES]
        return CallsFrame([*blank[: at - 1], *inner, *blank[at + 2 :]], bytes(spots), bytes(calls))

    def share(self, begin: BeginTemplate, lengths: i64) -> None:
        """Learn how such objects begin as those of steps that began so."""
        if self._shares > 0 and lengths >= 0:
            self._shares -= 1
            self.shared = shared_beginning(begin, lengths, self)

    def ids(self, pieces: list[bytes]) -> tuple[Any, Any]:
        """The ids of run and thread in such an object."""
        run = self.run_id if self.run_at < 0 else pieces[self.run_at].decode("ascii")
        thread = self.thread_id if self.thread_at < 0 else pieces[self.thread_at].decode("ascii")
        return run, thread


# --- learning ----------------------------------------------------------------------------------------------------


def learn_begin(value: bytes, data_at: int, event: ExactObject) -> BeginTemplate | None:
    """The template of a value that was read as `event`, from `data_at` on; None: it has none that could be used."""
    holes = _holes(value, data_at, _IDS, _NUMBERS)

    def read(whole: bytes) -> Any:
        found = exact_object(whole[data_at:-1], event.kind)
        return None if found is None else msgspec.to_builtins(found.stated)

    places = places_of(value, holes, read)
    if places is None:
        return None
    spots = [number if path in _OF_BEGIN else NOWHERE for number, path in enumerate(places)]
    shape = Shape(value, holes, Frame([_NOTHING] * len(holes), bytes(spots)))
    return BeginTemplate(shape, event, places, data_at)


def learn_call(value: bytes) -> CallTemplate | None:
    """The template of a delta that begins one function call."""
    holes = _text_holes(value)
    places = places_of(value, holes, lambda whole: msgspec.to_builtins(exact_delta(whole).data))
    if places is None:
        return None
    (call,) = exact_delta(value).data.delta.step_details.tool_calls
    function, kind = call.function, call.type
    if function is _UNSET or kind is _UNSET:
        return None
    says_output = function.output is None
    return CallTemplate(Shape(value, holes), places, call.index, kind, says_output=says_output)


def has_template(data: bytes) -> bool:
    """Whether an ending object has no null that erases nothing: what it leaves to the step, no template knows."""
    stated = read_split_step(data)
    return stated.step_details != _NULL and all(getattr(stated, name) is not None for name in KEPT_OVER_NULL)


def learn_end(value: bytes, data_at: int) -> EndTemplate | None:
    """The template of an object that `has_template` and has ended a step by the fast path."""

    def split(whole: bytes) -> StatedStep[Raw]:
        return read_split_step(whole[data_at:-1])

    stated = split(value)
    details = bytes(stated.step_details)
    begin = value.find(details)
    end = begin + len(details)
    holes = _holes(value, data_at, _IDS, _NUMBERS)
    is_message, is_nothing = stated.type == "message_creation", _is_nothing(details)
    is_span = not is_message and not is_nothing
    if not is_message:
        holes = [hole for hole in holes if hole.end <= begin or hole.begin >= end]
    if is_span:
        holes = sorted([*holes, Hole(begin, end, SPAN)], key=_begin_of)

    def read(whole: bytes) -> Any:
        stated = split(whole)
        told = {name: getattr(stated, name) for name in _FIELDS}
        held = bytes(stated.step_details)
        told[_DETAILS] = held if is_span else read_any(held)
        return {name: content for name, content in told.items() if content is not _UNSET}

    places = places_of(value, holes, read)
    if places is None or type(stated.thread_id) is int:
        return None
    marked = split(_filled(value, holes))
    marks = [_mark_bytes(number, hole.kind) for number, hole in enumerate(holes)]
    if is_message:
        marked.step_details = Raw(canonical(read_any(bytes(marked.step_details))))
    elif is_nothing:
        marks.append(_mark_bytes(len(marks), SPAN))
        marked.step_details = Raw(marks[-1])
    gaps = _gaps_of(marked, marks)
    if gaps is None:
        return None
    at = {number: 2 * place + 1 for place, number in enumerate(gaps.order)}
    shape = Shape(value, holes, Frame(gaps.layout, bytes(at[number] for number in range(len(holes)))))
    details_at = at[places.index((_DETAILS,))] if is_span else at.get(len(holes), -1)
    return EndTemplate(shape, stated, places, data_at, details_at)


def shared_beginning(begin: BeginTemplate, lengths: i64, end: EndTemplate) -> SharedBeginning | None:
    """The beginning that objects of two templates share; None: it does not hold the id."""
    ours, theirs = begin.shape, end.shape
    first = ours.first[begin.data_at :]
    if first != theirs.first[end.data_at :]:
        return None
    told: int = lengths
    sizes = told.to_bytes(min(len(ours.kinds), FIRST_HOLES))
    gaps: list[int] = []
    gap = len(first)
    for number in range(len(sizes)):
        if number >= len(theirs.kinds) or ours.kinds[number] != theirs.kinds[number]:
            break
        gaps.append(gap)
        gap = len(ours.parts[number])
        if ours.parts[number] != theirs.parts[number]:
            break
    shared = len(gaps)
    if shared <= end.id_hole or max(gaps) > 0xFF:
        return None
    says_run = 0 <= end.run_hole < shared and begin.run_at == end.run_hole
    return SharedBeginning(begin, lengths, bytes(gaps), sizes[:shared], end.id_hole, says_run=says_run)


def learn_named(details: bytes) -> NamedCalls | None:
    """Learn in which form a producer's details name function calls; None: in one that cannot be used."""
    holes = _text_holes(details)

    def read(whole: bytes) -> Any:
        return msgspec.to_builtins(read_exact_details(whole))

    places = places_of(details, holes, read)
    if places is None:
        return None
    told = read_exact_details(details)
    calls = told.tool_calls
    if calls is _UNSET or told.type != "tool_calls":
        return None
    order: list[int] = []
    for _, number, *field in places:
        assert type(number) is int
        order.append(3 * number + _OF_CALL.index(tuple(field)))
    texts = sum(1 << number for number, call in enumerate(calls) if type(call.function.arguments) is not str)
    outputs = sum(1 << number for number, call in enumerate(calls) if call.function.output is None)
    begins = [0, *(hole.end + (hole.kind == PLAIN) for hole in holes)]
    ends = [*(hole.begin - (hole.kind == PLAIN) for hole in holes), len(details)]
    parts = [details[begin:end] for begin, end in zip(begins, ends, strict=True)]
    blank = [piece for part in parts for piece in (part, _NOTHING)]
    at = {place: 2 * number + 1 for number, place in enumerate(order)}
    spots = bytes(at.get(place, NOWHERE) for place in range(3 * len(calls)))
    return NamedCalls(CallsFrame(blank, b"", spots), [call.type for call in calls], texts, outputs)


def _is_nothing(details: bytes) -> bool:
    """Whether an object with these details leaves all calls to the fold."""
    try:
        told = read_exact_details(details)
    except msgspec.MsgspecError:  # of calls of another tool
        return False
    return told.tool_calls == []


def _begin_of(hole: Hole) -> int:
    return hole.begin


def _holes(value: bytes, begin: int, texts: re.Pattern[bytes], numbers: re.Pattern[bytes] | None = None) -> list[Hole]:
    found = [Hole(*match.span(1), PLAIN) for match in texts.finditer(value, begin)]
    if numbers is not None:
        found += [Hole(*match.span(1), NUMBER) for match in numbers.finditer(value, begin)]
    return sorted(found, key=_begin_of)


def _text_holes(value: bytes) -> list[Hole]:
    """Ids, names and arguments."""
    holes = [*_holes(value, 0, _NAMES), *(Hole(*found.span(1), TEXT) for found in _ARGUMENTS.finditer(value))]
    return sorted(holes, key=_begin_of)


def id_and_number_holes(data: bytes) -> list[Hole]:
    """Find the holes of ids and numbers, as far as the names in front of them tell."""
    return _holes(data, 0, _IDS, _NUMBERS)


def places_of(
    value: bytes, holes: list[Hole], read: Callable[[bytes], Any], *, keeps_texts: bool = False
) -> list[Path] | None:
    """Which leaf stands in each hole: it alone, and nothing else changes with it. None: not so, or more varies.

    Args:
        keeps_texts: texts beside the holes may be anything that stays the same; else only what always does.
    """
    if len(holes) > MOST_HOLES or any(hole.end > later.begin for hole, later in pairwise(holes)):
        return None
    try:
        before, after = dict(_leaves(read(value), ())), dict(_leaves(read(_filled(value, holes)), ()))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    marks = [_mark_of(number, hole.kind) for number, hole in enumerate(holes)]
    places: list[Path | None] = [None] * len(holes)
    if before.keys() != after.keys():
        return None
    for path, leaf in after.items():
        if leaf in marks:
            number = marks.index(leaf)
            if before[path] == leaf:
                return None
            places[number] = path
        elif (
            leaf != before[path]
            or type(leaf) is not type(before[path])
            or (not keeps_texts and not _is_constant(path, leaf))
        ):
            return None
    found = [path for path in places if path is not None]
    return found if len(found) == len(holes) else None


def _is_constant(path: Path, leaf: Any) -> bool:
    return type(leaf) is not str or path[-1] in _CONSTANT_TEXTS


def _leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """All that is no container, or an empty one, with the way there."""
    if type(tree) is dict and tree:
        for name, held in tree.items():
            yield from _leaves(held, (*path, name))
    elif type(tree) is list and tree:
        for number, held in enumerate(tree):
            yield from _leaves(held, (*path, number))
    else:
        yield path, tree


def _mark_of(number: int, kind: int) -> Any:
    """Mark that is put into a hole to see where it comes out."""
    if kind == NUMBER:
        return _FIRST_NUMBER + number
    mark = _MARK % number
    return f'"{mark}"'.encode() if kind == SPAN else mark


def _mark_bytes(number: int, kind: int) -> bytes:
    mark = _mark_of(number, kind)
    return mark if type(mark) is bytes else str(mark).encode()


def _filled(value: bytes, holes: list[Hole]) -> bytes:
    """The value with a mark in each hole."""
    pieces, at = [], 0
    for number, hole in enumerate(holes):
        pieces += [value[at : hole.begin], _mark_bytes(number, hole.kind)]
        at = hole.end
    return b"".join((*pieces, value[at:]))


def _gaps_of(marked: StatedStep[Raw], marks: list[bytes]) -> Gaps | None:
    """The canonical bytes of an object that has all marks, with a gap in place of each."""
    for name in SCHEMA_KEYS:
        if getattr(marked, name) is _UNSET:
            setattr(marked, name, None)
    rest = canonical_step(marked)
    if any(rest.count(mark) != 1 for mark in marks):
        return None
    begin_of = rest.find
    order = sorted(range(len(marks)), key=lambda number: begin_of(marks[number]))
    pieces: list[bytes] = []
    for number in order:
        before, _, rest = rest.partition(marks[number])
        pieces += [before, b""]
    return Gaps([*pieces, rest], order)


def _place(places: list[Path], *path: str | int) -> int:
    return places.index(path) if path in places else -1


def _unset_bits(told: tuple[Any, ...]) -> int:
    return sum(1 << number for number, held in enumerate(told) if held is _UNSET)
