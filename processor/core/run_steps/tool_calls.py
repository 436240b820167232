"""Calls of any tools in the tree of a step: published, and compared with what an ending object names, as bytes.

Trees of one outline differ in their texts alone. What is published of one, and what becomes of it by an object that
names its calls in the same words, is learned once, with marks in place of the texts, from the functions that do it for
any tree (`merge`). Outlines make an end faster and decide no outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import msgspec

from processor.core.growing_text import Text
from processor.core.learned_bytes import LearnedBytes, size_of
from processor.core.merge import Indexed, Notes, Tree, Way, copied, finish, odd_leaves, publishable
from processor.core.wire_types import canonical, read_any, read_tool_details

_encode: Final = msgspec.json.Encoder().encode
_NOTHING: Final = b""
_QUOTE: Final = b'"'
_MARK: Final = "~%d~"
_MAX_OUTLINES: Final = 16
"""How many are known of one way to end a step: a producer's steps have few."""
_MAX_NAMED: Final = 4
"""In how many ways the calls of one outline may be named."""
_ATTEMPTS: Final = 16
_NAME_BYTES: Final = 64
"""What a name takes beside its letters."""
_MAX_LEVELS: Final = 8
_TEXT, _GROWING, _NULL, _EMPTY, _OBJECT, _LIST, _ENTRY, _END = range(8)
"""What follows a name in an outline: numbers, for a name may be any text."""
_TYPE: Final = "type"
_NO_VALUE: Final = object()


class Gaps:
    """Bytes with gaps, each for one of the texts of a tree."""

    __slots__ = ("layout", "order")

    def __init__(self, layout: list[bytes], order: list[int]) -> None:
        self.layout, self.order = layout, order

    def filled(self, texts: list[Any]) -> bytes:
        """The bytes with these texts."""
        pieces: list[Any] = self.layout.copy()
        at = 1
        for number in self.order:
            pieces[at] = texts[number]
            at += 2
        return _NOTHING.join(pieces)


class Named:
    """One way in which objects name the calls of an outline, and what is published then, with its odd leaves."""

    __slots__ = ("leaves", "published", "said")

    def __init__(self, said: Gaps, published: Gaps, leaves: list[Way]) -> None:
        self.said, self.published, self.leaves = said, published, leaves


class Outline:
    """Outline of trees that differ in their texts alone: what is the same in them.

    `left`: what is published where an object leaves the calls to the fold, with its odd leaves, which are `leaves`;
    None: that is to be had from the tree.
    """

    __slots__ = ("_attempts", "_ids", "_learned", "_named", "leaves", "left")

    def __init__(self, tree: Tree, learned: LearnedBytes) -> None:
        self._learned = learned
        marked: Tree = _with_marks(tree, count())
        self.leaves = odd_leaves(marked) or []
        self.left = None if odd_leaves(marked) is None else _gaps(canonical(publishable(marked)), _texts(tree))
        self._ids = _ids_of(tree, count())
        self._named: list[Named] = []
        self._attempts = _ATTEMPTS

    def named(self, details: bytes, texts: list[Any]) -> Named | None:
        """The form in which these details name the calls that have these texts; None: it is not known."""
        for known in self._named:
            if known.said.filled(texts) == details:
                ids = self._ids
                # Entries are matched by their ids (M1).
                return known if len(ids) < 2 or len({texts[number] for number in ids}) == len(ids) else None
        return None

    def learn(self, details: bytes, tree: Tree) -> None:
        """Learn from details that an ending object of such a step had."""
        if self._attempts > 0 and len(self._named) < _MAX_NAMED:
            self._attempts -= 1
            found = learn_named(details, tree)
            if found is not None and self._learned.take(size_of(found.said.layout) + size_of(found.published.layout)):
                self._named.append(found)


class Outlines:
    """The outlines of steps that are ended by one template."""

    __slots__ = ("_known", "learned")

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Outline] = {}
        self.learned = LearnedBytes()

    def of(self, tree: Tree, leaves: list[Any]) -> Outline | None:
        """The outline of a tree, whose texts are put into `leaves`; None: it has none that could be used."""
        outline: list[Any] = []
        if not _trace(tree, outline, leaves, 0):
            return None
        key = tuple(outline)
        found = self._known.get(key)
        if found is None and len(self._known) < _MAX_OUTLINES and self.learned.take(_size_of(key)):
            found = self._known[key] = Outline(tree, self.learned)
        return found


def _size_of(key: tuple[Any, ...]) -> int:
    """About how many bytes of memory an outline takes: each name once more in what is published, and its key."""
    return sum(2 * len(item) + 2 * _NAME_BYTES if isinstance(item, str) else _NAME_BYTES for item in key)


def pieces_of(leaves: list[Any]) -> list[Any]:
    """Texts as JSON, those that grow without their quotes."""
    return [leaf.inside() if isinstance(leaf, Text) else _encode(leaf) for leaf in leaves]


def _trace(held: Tree, outline: list[Any], leaves: list[Any], level: int) -> bool:
    """Put down the outline of an object and its texts; False: it has something that is not the same in all others."""
    if level > _MAX_LEVELS:
        return False
    for name, value in held.items():
        outline.append(name)
        if isinstance(value, str):
            if name == _TYPE:
                outline.append(value)
            else:
                outline.append(_TEXT)
                leaves.append(value)
        elif value is None:
            outline.append(_NULL)
        elif isinstance(value, Text):
            if value.may_hold_half:
                return False
            outline.append(_GROWING)
            leaves.append(value)
        elif isinstance(value, Indexed):
            outline.append(_LIST)
            number = 0
            for index, entry in value.entries.items():
                if index != number:
                    return False
                number += 1  # noqa: SIM113  no object for each
                outline.append(_ENTRY)
                if not _trace(entry, outline, leaves, level + 1):
                    return False
            outline.append(_END)
        elif isinstance(value, dict):
            outline.append(_OBJECT)
            if not _trace(value, outline, leaves, level + 1):
                return False
            outline.append(_END)
        elif isinstance(value, list) and not value:
            outline.append(_EMPTY)
        else:
            return False
    return True


# --- learning: all in the order in which `_trace` goes --------------------------------------------------------------


def _with_marks(value: Any, numbers: Iterator[int]) -> Any:
    """A tree with a mark in place of each of its texts."""
    kind = type(value)
    if kind is dict:
        return {
            name: item if name == _TYPE and type(item) is str else _with_marks(item, numbers)
            for name, item in value.items()
        }
    if kind is Indexed:
        return Indexed({index: _with_marks(entry, numbers) for index, entry in value.entries.items()})
    if kind is Text:
        text = Text()
        text.write(_MARK % next(numbers))
        return text
    return _MARK % next(numbers) if kind is str else value


def _texts(tree: Tree) -> list[Any]:
    """The texts of a tree that has an outline."""
    leaves: list[Any] = []
    _trace(tree, [], leaves, 0)
    return leaves


def _ids_of(value: Any, numbers: Iterator[int], name: str = "") -> list[int]:
    """Which of the texts are ids."""
    kind = type(value)
    if kind is dict:
        return [
            number
            for key, item in value.items()
            if key != _TYPE or type(item) is not str
            for number in _ids_of(item, numbers, key)
        ]
    if kind is Indexed:
        return [number for entry in value.entries.values() for number in _ids_of(entry, numbers)]
    if kind is Text or kind is str:
        number = next(numbers)
        return [number] if name == "id" else []
    return []


def learn_named(details: bytes, tree: Tree) -> Named | None:
    """Learn in which form details name the calls of a tree, all of whose texts they say as the fold has them, or leave
    to it.

    None: they say anything else that could be another time.
    """
    texts = _texts(tree)
    told: Any = read_any(details)
    said: dict[int, bytes] = {}
    expected = _mark_said(told, tree, count(), said)
    numbers = {_MARK % number: number for number in said}
    told_texts = _told_texts(expected)
    if not numbers.keys() >= set(told_texts):
        return None
    gaps = _gaps_of(details, [(numbers[mark], said[numbers[mark]]) for mark in told_texts], texts)
    if gaps is None:
        return None
    marks: list[Any] = [_mark_in(number, texts) for number in range(len(texts))]
    filled = gaps.filled(marks)
    try:
        if read_any(filled) != expected:
            return None
    except msgspec.DecodeError:  # a quote that is no text's
        return None
    stated, notes = read_tool_details(filled), Notes()
    after = _with_marks(tree, count())
    if stated.tool_calls:
        after = copied(after)
        finish(after, {_TYPE: stated.type, "tool_calls": stated.tool_calls}, notes)
    leaves = odd_leaves(after)
    if leaves is None or notes.changed_field or notes.fold_divergence:
        return None
    published = _gaps(canonical(publishable(after)), texts)
    return None if published is None else Named(gaps, published, leaves)


def _mark_said(told: Any, held: Any, numbers: Iterator[int], said: dict[int, bytes]) -> Any:
    """Copy of what is told, with marks in place of the texts that the tree has in the same place."""
    kind = type(held)
    if kind is dict:
        marked = dict(told) if type(told) is dict else told
        for name, item in held.items():
            if name == _TYPE and type(item) is str:
                continue
            is_told = type(told) is dict and name in told
            found = _mark_said(told[name] if is_told else _NO_VALUE, item, numbers, said)
            if is_told:
                marked[name] = found
        return marked
    if kind is Indexed:
        is_told = type(told) is list and len(told) == len(held.entries)
        entries = [
            _mark_said(told[number] if is_told else _NO_VALUE, entry, numbers, said)
            for number, entry in enumerate(held.entries.values())
        ]
        return entries if is_told else told
    if kind is Text or kind is str:
        number = next(numbers)
        if type(told) is str and told == (held.getvalue() if kind is Text else held):
            said[number] = _encode(told)
            return _MARK % number
    return told


def _told_texts(told: Any, name: str = "") -> list[str]:
    """All texts that are told, types aside, in their order."""
    if type(told) is dict:
        return [text for key, item in told.items() for text in _told_texts(item, key)]
    if type(told) is list:
        return [text for item in told for text in _told_texts(item)]
    return [told] if type(told) is str and name != _TYPE else []


def _mark_in(number: int, texts: list[Any]) -> bytes:
    """The mark as `pieces_of` has the text that it stands for."""
    mark = (_MARK % number).encode()
    return mark if isinstance(texts[number], Text) else _QUOTE + mark + _QUOTE


def _gaps(content: bytes, texts: list[Any]) -> Gaps | None:
    """Bytes that have all marks, with gaps in their places."""
    marks = [(number, _encode(_MARK % number)) for number in range(len(texts))]
    return _gaps_of(content, sorted(marks, key=lambda mark: content.find(mark[1])), texts)


def _gaps_of(content: bytes, found: list[tuple[int, bytes]], texts: list[Any]) -> Gaps | None:
    """Bytes with gaps in place of these texts, in this order; None where one stands elsewhere, too, or not at all."""
    quoted = [text for _, text in found]
    if any(content.count(text) != quoted.count(text) for text in quoted):
        return None
    layout: list[bytes] = []
    order: list[int] = []
    at = 0
    for number, text in found:
        begin = content.find(text, at)
        if begin < 0:
            return None
        grows = isinstance(texts[number], Text)  # its quotes are no part of it
        end = begin + len(text)
        layout += [content[at : begin + grows], _NOTHING]
        order.append(number)
        at = end - grows
    return Gaps([*layout, content[at:]], order)
