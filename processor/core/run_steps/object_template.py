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

from processor.core.json_bytes import digits_end, plain_end, text_end
from processor.core.run_steps.function_calls import NamedCalls
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

_IS_COMPILED: Final = not __file__.endswith(".py")
_PLAIN: Final = 0
"""A text of printable ASCII without quote and backslash: an id, or a name."""
_NUMBER: Final = 1
"""A whole number above 0 of at most 15 digits: a time, or a count."""
_TEXT: Final = 2
"""Any text; whether it is one is yet to be seen."""
_SPAN: Final = 3
"""The details of an end: any JSON, yet to be read."""
_PATTERNS: Final = (rb"([ !#-\[\]-~]*)", rb"([1-9][0-9]{0,14})", rb'((?:[^"\\]|\\.)*)', rb"(.*)")
_IDS: Final = re.compile(rb'"(?:id|run_id|assistant_id|thread_id|message_id)"\s*:\s*"([ !#-\[\]-~]*)"')
_NAMES: Final = re.compile(rb'"(?:id|name)"\s*:\s*"([ !#-\[\]-~]*)"')
_ARGUMENTS: Final = re.compile(rb'"arguments"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NUMBERS: Final = re.compile(rb":\s*([1-9][0-9]{0,14})(?=\s*[,}])")
_CONSTANT_TEXTS: Final = frozenset({"object", "type", "status"})
"""Texts that are the same in all objects of a template; another one would make a template of its own each time."""
_NOTHING: Final = b""
_FIRST_HOLES: Final = 7
"""Of how many holes `Shape.lengths` tells, a byte each in a number of 64 bits."""
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
"""What `function_calls.pieces_of` gives of each call."""
_NAMED_ATTEMPTS: Final = 16
_MAX_SHARES: Final = 256
"""How often it is learned anew how ends begin, which is where ids have other lengths than before."""
_OF_BEGIN: Final = (("id",), ("run_id",), ("expires_at",), _MESSAGE)
"""What is asked for of an object that begins a step; all of it is kept as it stands."""

Path = tuple[str | int, ...]


class Hole:
    """Where a template has a hole: what stands at `begin` to `end` in the value that it is learned from."""

    __slots__ = ("begin", "end", "kind")

    def __init__(self, begin: int, end: int, kind: int) -> None:
        self.begin, self.end, self.kind = begin, end, kind


class Shape:
    """Constant bytes with holes between them: hole n follows part n. The quotes of a text belong to the parts.

    `wanted`: which holes are asked for, if not all. `lengths`: of what stood in the first `_FIRST_HOLES` of the value
    that was cut last, a byte each; -1 where one is longer.
    """

    __slots__ = ("_last", "_patterns", "_wanted", "first", "kinds", "lengths", "parts")

    def __init__(self, value: bytes, holes: list[Hole], wanted: list[bool] | None = None) -> None:
        begins = [0, *(hole.end for hole in holes)]
        ends = [*(hole.begin for hole in holes), len(value)]
        parts = [value[begin:end] for begin, end in zip(begins, ends, strict=True)]
        self.first, self._last, self.parts = parts[0], parts[-1], parts[1:]
        self.kinds = bytes(hole.kind for hole in holes)
        self._wanted = bytes([True] * len(holes) if wanted is None else wanted)
        self._patterns: dict[int, Any] = {}
        self.lengths: i64 = -1

    def cut(self, value: bytes) -> list[bytes] | None:
        """What stands in the holes, if this is a value of the shape; for a hole that is not wanted, anything."""
        if not value.startswith(self.first) or not value.endswith(self._last):
            return None
        return self._cut_from(value, len(self.first), 0, [])

    def cut_behind(self, value: bytes, begin: i64, opening: bytes, shared: SharedBeginning) -> list[bytes] | None:
        """`cut` of a value whose data begins at `begin`, if as much of it is shared with `opening` as there should be.

        `opening`, the data of an object that began a step, was cut before.
        """
        end: i64 = shared.end
        at: i64 = begin + end
        if len(opening) < end or value[begin:at] != opening[:end] or not value.endswith(self._last):
            return None
        cuts: list[bytes] = []
        for hole_at, hole_end in shared.places:
            cuts.append(opening[hole_at:hole_end])
        number: i64 = len(cuts)
        part = self.parts[number - 1]
        next_at: i64 = at + len(part)
        return self._cut_from(value, next_at, number, cuts) if value[at:next_at] == part else None

    def _cut_from(self, value: bytes, at: i64, number: i64, cuts: list[bytes]) -> list[bytes] | None:
        """The rest of `cut`, from this hole on, which begins at `at`."""
        if not _IS_COMPILED:
            return self._match_from(value, at, number, cuts)
        size: i64 = len(value)
        parts, kinds, wanted = self.parts, self.kinds, self._wanted
        last: i64 = len(kinds) - 1
        lengths: i64 = 0
        widest: i64 = 0
        while number <= last:
            part = parts[number]
            kind: i64 = kinds[number]
            if kind == _PLAIN:
                end = plain_end(value, at, size)
            elif kind == _NUMBER:
                end = digits_end(value, at, size)
            elif kind == _TEXT:
                end = text_end(value, at, size)
            else:
                end = value.rfind(part, at)
            if end < 0:
                return None
            next_at: i64 = end + len(part)
            if next_at > size or (number < last and value[end:next_at] != part):  # the last was looked at first
                return None
            is_wanted: i64 = wanted[number]
            cuts.append(value[at:end] if is_wanted else _NOTHING)
            if number < _FIRST_HOLES:
                widest |= end - at
                lengths = lengths << 8 | end - at
            number += 1
            at = next_at
        self.lengths = lengths if widest < 0x100 else -1
        return cuts if at == size else None

    def _match_from(self, value: bytes, at: int, number: int, cuts: list[bytes]) -> list[bytes] | None:
        """The same by an expression, as Python has no other way that is as fast."""
        match = self._patterns.get(number)
        if match is None:
            pattern = b""
            for kind, part in zip(self.kinds[number:], self.parts[number:], strict=True):
                pattern += _PATTERNS[kind] + re.escape(part)
            match = self._patterns[number] = re.compile(pattern, re.DOTALL).fullmatch
        found = match(value, at)
        if found is None:
            return None
        sizes = [len(cut) for cut in found.groups()[:_FIRST_HOLES]]
        self.lengths = int.from_bytes(bytes(sizes)) if max(sizes, default=0) < 0x100 else -1
        return [*cuts, *found.groups()]


# --- the templates -----------------------------------------------------------------------------------------------


class BeginTemplate:
    """Of objects that begin a step. `absent`: bits of the fields that none of them names; `*_at`: which hole, or -1.

    `data_at`: where the data begins.
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
    """Of deltas that begin a function call, the only one that they name, at this index."""

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
        if name != self._name or not self._quoted_name:
            self._name, self._quoted_name = name, b'"' + name + b'"'
        return self._quoted_name


class SharedBeginning:
    """How objects that end a step begin as those that began it: with the same bytes, as far as `end` in their data.

    Args:
        begin, lengths: of the objects that began the steps; `Shape.lengths` of their holes.
        places: where the holes stand in the data that are before `end`. The step's id is number `id_at` of them.
    """

    __slots__ = ("begin", "end", "id_at", "id_end", "lengths", "places")

    def __init__(self, begin: BeginTemplate, lengths: i64, places: list[tuple[int, int]], id_at: int) -> None:
        self.begin, self.places = begin, places
        self.lengths: i64 = lengths
        self.end: i64 = places[-1][1]
        self.id_at: i64 = places[id_at][0]
        self.id_end: i64 = places[id_at][1]


class EndTemplate:
    """Of objects that end a step, and of what is published then: the same pieces in another order.

    `unsaid`: bits of the fields that none of them names, `absent` those among them that are published as null.
    The details are one of three: `details_at` and `message_at` are -1 where all leave the calls to the fold in the same
    words; where they may say anything, `details_at` is their hole; where they say a message, `message_at` is its id.
    """

    __slots__ = (
        "_attempts",
        "_gaps",
        "_shares",
        "absent",
        "data_at",
        "details_at",
        "id_at",
        "message_at",
        "named",
        "outlines",
        "run_at",
        "run_id",
        "shape",
        "shared",
        "thread_at",
        "thread_id",
        "type",
        "unsaid",
    )

    def __init__(self, shape: Shape, stated: StatedStep[Any], places: list[Path], gaps: Gaps, data_at: int):
        self.shape, self.type = shape, stated.type
        self.unsaid = _unset_bits(msgspec.structs.astuple(stated))
        self.absent = self.unsaid & _SCHEMA_BITS
        self.id_at, self.details_at = _place(places, "id"), _place(places, _DETAILS)
        self.message_at = _place(places, *_MESSAGE)
        self.run_at, self.thread_at = _place(places, "run_id"), _place(places, "thread_id")
        self.run_id: Any = None if stated.run_id is _UNSET else stated.run_id
        self.thread_id: Any = None if stated.thread_id is _UNSET else stated.thread_id
        """What all of them say, if it is no hole."""
        self._gaps, self.data_at = gaps, data_at
        self.shared: SharedBeginning | None = None
        """With the object that began the step which ended last."""
        self.named: dict[int, NamedCalls] = {}
        """How such objects name function calls, by how many."""
        self.outlines = Outlines()
        """Of trees that such objects end."""
        self._attempts = _NAMED_ATTEMPTS
        self._shares = _MAX_SHARES

    def learn_named(self, details: bytes) -> None:
        """Learn from details that such an object had, and that named what was folded."""
        if self._attempts > 0:
            self._attempts -= 1
            found = learn_named(details)
            if found is not None:
                self.named[len(found.kinds)] = found

    def published(self, cuts: list[bytes], details: bytes) -> bytes:
        """The canonical bytes of a step that such an object ends; `details` are not asked for where it says a message.

        `cuts` are changed.
        """
        if self.details_at >= 0:
            cuts[self.details_at] = details
        elif self.message_at < 0:
            cuts.append(details)
        return self._gaps.filled(cuts)

    def share(self, begin: BeginTemplate, lengths: i64) -> None:
        """Learn how such objects begin as those of steps that began so."""
        if self._shares > 0 and lengths >= 0:
            self._shares -= 1
            self.shared = shared_beginning(begin, lengths, self)

    def ids(self, cuts: list[bytes]) -> tuple[Any, Any]:
        """What such an object says of run and thread."""
        run = self.run_id if self.run_at < 0 else cuts[self.run_at].decode("ascii")
        thread = self.thread_id if self.thread_at < 0 else cuts[self.thread_at].decode("ascii")
        return run, thread


# --- learning ----------------------------------------------------------------------------------------------------


def learn_begin(value: bytes, data_at: int, event: ExactObject) -> BeginTemplate | None:
    """The template of a value that was read as `event`, from `data_at` on; None: it has none that could be used."""
    holes = _holes(value, data_at, _IDS, _NUMBERS)

    def read(whole: bytes) -> Any:
        found = exact_object(whole[data_at:-1], event.kind)
        return None if found is None else msgspec.to_builtins(found.stated)

    places = _places(value, holes, read)
    if places is None:
        return None
    return BeginTemplate(Shape(value, holes, [path in _OF_BEGIN for path in places]), event, places, data_at)


def learn_call(value: bytes) -> CallTemplate | None:
    """The template of a delta that begins one function call."""
    holes = _text_holes(value)
    places = _places(value, holes, lambda whole: msgspec.to_builtins(exact_delta(whole).data))
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
        holes = sorted([*holes, Hole(begin, end, _SPAN)], key=_begin_of)

    def read(whole: bytes) -> Any:
        stated = split(whole)
        told = {name: getattr(stated, name) for name in _FIELDS}
        held = bytes(stated.step_details)
        told[_DETAILS] = held if is_span else read_any(held)
        return {name: content for name, content in told.items() if content is not _UNSET}

    places = _places(value, holes, read)
    if places is None or type(stated.thread_id) is int:
        return None
    marked = split(_filled(value, holes))
    marks = [_mark_bytes(number, hole.kind) for number, hole in enumerate(holes)]
    if is_message:
        marked.step_details = Raw(canonical(read_any(bytes(marked.step_details))))
    elif is_nothing:
        marks.append(_mark_bytes(len(marks), _SPAN))
        marked.step_details = Raw(marks[-1])
    gaps = _gaps_of(marked, marks)
    return None if gaps is None else EndTemplate(Shape(value, holes), stated, places, gaps, data_at)


def shared_beginning(begin: BeginTemplate, lengths: i64, end: EndTemplate) -> SharedBeginning | None:
    """What objects of the two templates share; None: not as much as the id."""
    ours, theirs = begin.shape, end.shape
    first = ours.first[begin.data_at :]
    if first != theirs.first[end.data_at :]:
        return None
    told: int = lengths
    sizes = told.to_bytes(min(len(ours.kinds), _FIRST_HOLES))
    places: list[tuple[int, int]] = []
    at = len(first)
    for number, size in enumerate(sizes):
        if number >= len(theirs.kinds) or ours.kinds[number] != theirs.kinds[number]:
            break
        places.append((at, at + size))
        at += size + len(ours.parts[number])
        if ours.parts[number] != theirs.parts[number]:
            break
    return SharedBeginning(begin, lengths, places, end.id_at) if len(places) > end.id_at else None


def learn_named(details: bytes) -> NamedCalls | None:
    """How details name function calls, which is how a producer's others do; None: not so that it could be used."""
    holes = _text_holes(details)

    def read(whole: bytes) -> Any:
        return msgspec.to_builtins(read_exact_details(whole))

    places = _places(details, holes, read)
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
    begins = [0, *(hole.end + (hole.kind == _PLAIN) for hole in holes)]
    ends = [*(hole.begin - (hole.kind == _PLAIN) for hole in holes), len(details)]
    parts = [details[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return NamedCalls(parts, order, [call.type for call in calls], texts, outputs)


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
    found = [Hole(*match.span(1), _PLAIN) for match in texts.finditer(value, begin)]
    if numbers is not None:
        found += [Hole(*match.span(1), _NUMBER) for match in numbers.finditer(value, begin)]
    return sorted(found, key=_begin_of)


def _text_holes(value: bytes) -> list[Hole]:
    """Ids, names and arguments."""
    holes = [*_holes(value, 0, _NAMES), *(Hole(*found.span(1), _TEXT) for found in _ARGUMENTS.finditer(value))]
    return sorted(holes, key=_begin_of)


def _places(value: bytes, holes: list[Hole], read: Callable[[bytes], Any]) -> list[Path] | None:
    """Which leaf stands in each hole: it alone, and nothing else changes with it. None: not so, or more varies."""
    if any(hole.end > later.begin for hole, later in pairwise(holes)):
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
        elif leaf != before[path] or type(leaf) is not type(before[path]) or not _is_constant(path, leaf):
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
    """What is put into a hole to see where it comes out."""
    if kind == _NUMBER:
        return _FIRST_NUMBER + number
    mark = _MARK % number
    return f'"{mark}"'.encode() if kind == _SPAN else mark


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
