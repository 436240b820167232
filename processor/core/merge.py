"""How a step's details grow: the merge table (M1-M6 of docs/semantics.md) and the three ways to apply it.

`merge_delta` adds a delta, `fill` takes from an object what the fold lacks, `finish` lets an ending object replace what
was folded. A details tree is plain JSON but for two leaves: `Text`, which deltas append to at constant cost, and
`Indexed`, whose entries are matched by logical index and not by position. `plain` turns a tree back into JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import msgspec

from processor.core.growing_text import Text
from processor.core.surrogates import from_bytes, holds_half, joined

MAX_INDEX: Final = 1024

Json = Any
Tree = dict[str, Any]


class Rule(Enum):
    APPEND = auto()  # M2
    SET_ONCE = auto()  # M3


# fmt: off
MERGE: Final[Mapping[str, Rule]] = {
    "tool_calls[].function.arguments":              Rule.APPEND,
    "tool_calls[].azure_function.arguments":        Rule.APPEND,
    "tool_calls[].connected_agent.arguments":       Rule.APPEND,
    "tool_calls[].arguments":                       Rule.APPEND,   # mcp is flat
    "tool_calls[].code_interpreter.input":          Rule.APPEND,
    "tool_calls[].fabric_dataagent.input":          Rule.APPEND,
    "tool_calls[].code_interpreter.outputs[].logs": Rule.APPEND,
    "tool_calls[].azure_ai_search.*":               Rule.SET_ONCE,
}
"""From path to rule. `[]` after a name: a list whose entries are matched by index, in deltas and in objects; `*`: every
name there is."""
# fmt: on

# fmt: off
SET_ONCE: Final = frozenset({
    "id", "type", "name", "server_label", "message_id", "file_id", "output", "requesturl", "response_metadata",
    "run_id", "thread_id", "assistant_id",
})
# fmt: on
"""Names that are set once wherever they stand (M3)."""

ENTRIES: Final = "[]"
EVERY: Final = "*"


def _shape(table: Mapping[str, Rule]) -> Tree:
    """The table as a tree to walk along with the details; `[]` holds the shape of a list's entries."""
    root: Tree = {}
    for path, rule in table.items():
        node = root
        *way, leaf = path.replace("[]", ".[]").split(".")
        for name in way:
            node = node.setdefault(name, {})
        node[leaf] = rule
    return root


SHAPE: Final = _shape(MERGE)
_NOTHING: Final[Tree] = {}


def _rule(shape: Tree, key: str) -> Rule | Tree | None:
    return shape.get(key) or shape.get(EVERY)


class Indexed:
    """Entries by logical index (M1). `entries` maps index to tree; the entries themselves hold no `index`."""

    __slots__ = ("entries",)

    def __init__(self, entries: dict[int, Tree] | None = None) -> None:
        self.entries: dict[int, Tree] = {} if entries is None else entries


@dataclass
class Notes:
    """Notes of a merge: anomalies for the step, and the count of nulls that changed nothing (M4)."""

    changed_field: bool = False
    fold_divergence: bool = False
    nulls: int = 0


def plain(value: Json) -> Json:
    """A tree as JSON: texts joined, indexed entries sorted and without their index."""
    kind = type(value)
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    if kind is list:
        return [plain(item) for item in value]
    if kind is Text:
        return joined(value.getvalue())
    if kind is Indexed:
        return [plain(entry) for _, entry in sorted(value.entries.items())]
    return value


def publishable(value: Json) -> Json:
    """A tree as JSON to be published at once: as `plain`, but texts stand as JSON already."""
    kind = type(value)
    if kind is dict:
        return {key: publishable(item) for key, item in value.items()}
    if kind is list:
        return [plain(item) for item in value]
    if kind is Text:
        return joined(value.getvalue()) if value.may_hold_half else value.raw()
    if kind is Indexed:
        return [publishable(entry) for _, entry in sorted(value.entries.items())]
    return value


def lacks_half(value: Json) -> bool:
    """Whether a text of the tree has half a character whose other half did not come."""
    kind = type(value)
    if kind is dict:
        return any(lacks_half(item) for item in value.values())
    if kind is Indexed:
        return any(lacks_half(entry) for entry in value.entries.values())
    return kind is Text and _holds_half(value)


def _holds_half(text: Text) -> bool:
    return text.may_hold_half and holds_half(text.getvalue())


def valid_index(index: Json) -> bool:
    """M1: an integer (not a boolean), 0 <= index < 1024."""
    return type(index) is int and 0 <= index < MAX_INDEX


def bad_index(details: Tree) -> str | None:
    """Why the indexes of this delta cannot be used (M1), or None. Looks at tool calls and code interpreter outputs."""
    for call in details.get("tool_calls") or ():
        if not valid_index(call.get("index")):
            return "tool_calls[].index: not an integer from 0 to 1023"
        code = call.get("code_interpreter")
        outputs = code.get("outputs") if type(code) is dict else None
        if type(outputs) is list and any(type(o) is dict and "index" in o for o in outputs):  # noqa: SIM102
            if not all(type(o) is dict and valid_index(o.get("index")) for o in outputs):
                return "outputs[].index: not an integer from 0 to 1023"
    return None


_PATHS: Final = [path.replace("[]", "").split(".") for path in MERGE]
_BODIES: Final = frozenset(name for path in _PATHS for name in path[:-1])
_FREE: Final = _BODIES | {path[-1] for path in _PATHS} | SET_ONCE | {"index"}
"""Names that cost nothing: there are only so many of them."""

SHORT: Final = 64
"""The longest `type` that costs nothing."""

_EACH: Final = 8
NULL_SIZE: Final = _EACH
"""What a null counts."""
_LEVELS: Final = 6


def characters(details: Json, level: int = 0) -> int:
    """Size of a delta (X1): all that can make a step grow, so that its limit bounds its memory and its checkpoint.

    Strings and names that no rule knows count by their characters; numbers, booleans, nulls, and the objects and list
    entries that no rule has a place for, `_EACH`. An index costs nothing, nor does a `type` of at most `SHORT`.
    """
    kind = type(details)
    if kind is str:
        return len(details)
    if kind is dict:
        total = 0
        for key, value in details.items():
            total += _characters_of(key, value, level)
        return total
    if kind is list:
        total = 0
        for value in details:
            total += characters(value, level + 1)
        return total
    return max(_EACH, details.bit_length() // 3) if kind is int else _EACH


def _characters_of(key: str, value: Json, level: int) -> int:
    kind = type(value)
    if (key == "index" and valid_index(value)) or (key == "type" and kind is str and len(value) <= SHORT):
        return 0
    total = 0 if key in _FREE else len(key)
    if (kind is dict or kind is list) and (key not in _BODIES or level > _LEVELS):
        total += _EACH * (len(value) if kind is list else 1)
    return total + characters(value, level + 1)


# --- deltas -------------------------------------------------------------------------------------------------


def merge_delta(tree: Tree, delta: Tree, notes: Notes, shape: Tree = SHAPE) -> None:
    """Merge a delta's object into `tree` in place (M1-M5). The delta's indexes were checked before (`bad_index`)."""
    for key, value in delta.items():
        old = tree.get(key)
        if value is None:
            if old is None:
                tree[key] = None
            else:
                notes.nulls += 1
            continue
        rule = _rule(shape, key)
        kind = type(value)
        if rule is Rule.APPEND and kind is str:
            if type(old) is Text:
                old.write(value)
                continue
            if old not in (None, "") and old != value:
                notes.changed_field = True
            tree[key] = text = Text()
            text.write(value)
        elif rule is Rule.SET_ONCE or key in SET_ONCE:
            _set_once(tree, key, old, value, notes)
        elif kind is dict:
            if type(old) is not dict:
                _note_conflict(old, value, notes)
                tree[key] = old = {}
            merge_delta(old, value, notes, rule if type(rule) is dict else _NOTHING)
        elif kind is list:
            _merge_list(tree, key, old, value, notes, rule if type(rule) is dict else _NOTHING)
        else:
            _note_replacement(old, value, notes)
            tree[key] = value


def _set_once(tree: Tree, key: str, old: Json, value: Json, notes: Notes) -> None:
    if old is not None and old != "" and plain(old) != value:
        if value == "":
            return
        notes.changed_field = True
    tree[key] = value


def _merge_list(tree: Tree, key: str, old: Json, value: list[Json], notes: Notes, shape: Tree) -> None:
    if value and all(type(item) is dict and valid_index(item.get("index")) for item in value):
        if type(old) is not Indexed:
            _note_replacement(old, value, notes)
            tree[key] = old = Indexed()
        for item in value:
            entry = old.entries.setdefault(item["index"], {})
            merge_delta(entry, {k: v for k, v in item.items() if k != "index"}, notes, shape.get(ENTRIES, _NOTHING))
    elif value or type(old) is not Indexed:
        _note_replacement(old, value, notes)
        tree[key] = value


_FAMILY: Final[Mapping[type, str]] = {
    str: "text",
    Text: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    dict: "object",
    list: "list",
    Indexed: "list",
}


def _note_conflict(old: Json, value: Json, notes: Notes) -> None:
    """M5: a value over one of another type is an anomaly."""
    if old is not None and _FAMILY[type(old)] != _FAMILY[type(value)]:
        notes.changed_field = True


_REPLACED_SILENTLY: Final = (bool, int, float)


def _note_replacement(old: Json, value: Json, notes: Notes) -> None:
    """M5 in a delta: text or a list over another one that was not empty is an anomaly, for it may have been a piece.

    Numbers and booleans are states that change (M4).
    """
    if not _lacks(old) and type(old) not in _REPLACED_SILENTLY and plain(old) != value:
        notes.changed_field = True
    else:
        _note_conflict(old, value, notes)


# --- objects ------------------------------------------------------------------------------------------------


def _lacks(value: Json) -> bool:
    """Whether a value is null or empty, so that an object may fill it and erases nothing."""
    kind = type(value)
    return (
        value is None or value == "" or (kind in (list, dict) and not value) or (kind is Indexed and not value.entries)
    )


def _adopt(value: Json, shape: Json) -> Json:
    """An object's value as a tree: lists that the table matches by index become `Indexed`, by position."""
    if type(value) is dict and type(shape) is dict:
        return {key: _adopt(item, shape.get(key)) for key, item in value.items()}
    if type(value) is list and _has_entries(shape) and all(type(item) is dict for item in value):
        below = shape[ENTRIES]
        return Indexed({index: _adopt(_without_index(item), below) for index, item in _matched({}, value)})
    return value


def _has_entries(shape: Json) -> bool:
    """Whether the table matches the entries of a list here by index; where it has an object, a list stays as it is."""
    return type(shape) is dict and ENTRIES in shape


def adopt(details: Tree) -> Tree:
    """An object's details as a tree of their own."""
    adopted: Tree = _adopt(details, SHAPE)
    return adopted


def copied(tree: Json) -> Json:
    """A tree to be changed by `finish` alone: its texts and its plain lists are those of the other one."""
    if type(tree) is dict:
        return {key: copied(item) for key, item in tree.items()}
    if type(tree) is Indexed:
        return Indexed({index: copied(entry) for index, entry in tree.entries.items()})
    return tree


Way = tuple[str | int, ...]


def odd_leaves(tree: Tree) -> list[Way] | None:
    """The ways to what `adopt` cannot tell from the tree's JSON: texts that deltas append to, and empty lists.

    None: the JSON does not give the tree back even with these (`restore_leaves`).
    """
    found: list[Way] = []
    return found if _find_leaves(tree, SHAPE, (), found) else None


def _find_leaves(value: Json, shape: Json, way: Way, found: list[Way]) -> bool:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if not _find_leaves(item, shape.get(key) if type(shape) is dict else None, (*way, key), found):
                return False
    elif kind is Indexed:
        if not _has_entries(shape) or sorted(value.entries) != list(range(len(value.entries))):
            return False
        for index, entry in value.entries.items():
            if "index" in entry or not _find_leaves(entry, shape[ENTRIES], (*way, index), found):
                return False
    elif kind is Text:
        found.append(way)
        return not _holds_half(value)
    elif kind is list and _has_entries(shape):
        if not value:
            found.append(way)
        return not value or not all(type(item) is dict for item in value)
    return True


def restore_leaves(tree: Tree, ways: list[Way]) -> None:
    """Make of what `adopt` gave the tree again whose `odd_leaves` these are."""
    for way in ways:
        holder: Any = tree
        for name in way[:-1]:
            held: Any = holder.entries if type(holder) is Indexed else holder
            holder = held[name]
        leaf = holder[way[-1]]
        if type(leaf) is str:
            text = Text()
            text.write(leaf)
            holder[way[-1]] = text
        else:
            holder[way[-1]] = []


def _without_index(item: Tree) -> Tree:
    return {key: value for key, value in item.items() if key != "index"} if "index" in item else item


def _matched(entries: Mapping[int, Tree], items: list[Tree]) -> list[tuple[int, Tree]]:
    """Which logical index each entry of an object's list belongs to (M1): by `index`, by `id`, by place, or new."""
    order = sorted(entries)
    by_id: dict[str, list[int]] = {}
    for held_at in order:
        known = entries[held_at].get("id")
        if type(known) is str:
            by_id.setdefault(known, []).append(held_at)
    taken: set[int] = set()
    matched: list[tuple[int, Tree]] = []
    for position, item in enumerate(items):
        own, wanted = item.get("id"), item.get("index")
        index: int | None = None
        named = [held_at for held_at in by_id.get(own, ()) if held_at not in taken] if type(own) is str else []
        if valid_index(wanted) and wanted not in taken:
            index = wanted
        elif named:
            index = named[0]
        elif position < len(order) and order[position] not in taken:
            held = entries[order[position]].get("id")
            if own is None or held is None:
                index = order[position]
        if index is None:
            free = position not in entries and position not in taken
            index = position if free else max((*order, *taken), default=-1) + 1
        taken.add(index)
        matched.append((index, item))
    return matched


def fill(tree: Tree, details: Tree, shape: Tree = SHAPE) -> None:
    """Take from an object that does not end the step what `tree` lacks; what the fold holds stays (L2)."""
    for key, value in details.items():
        old, rule = tree.get(key), _rule(shape, key)
        if _lacks(old):
            if not _lacks(value) or key not in tree:
                tree[key] = _adopt(value, rule)
        elif type(old) is dict and type(value) is dict:
            fill(old, value, rule if type(rule) is dict else _NOTHING)
        elif type(old) is Indexed and type(value) is list and all(type(item) is dict for item in value):
            below = rule.get(ENTRIES, _NOTHING) if type(rule) is dict else _NOTHING
            for index, item in _matched(old.entries, value):
                fill(old.entries.setdefault(index, {}), _without_index(item), below)


def finish(tree: Tree, details: Tree, notes: Notes, shape: Tree = SHAPE) -> None:
    """Replace what was folded by an ending object, field by field; null, absent and empty erase nothing (M6)."""
    for key, value in details.items():
        old, rule = tree.get(key), _rule(shape, key)
        if old is None:
            tree[key] = _adopt(value, rule)
        elif value is None or (_lacks(value) and value != ""):
            continue
        elif type(old) is Text:
            if joined(old.getvalue()) != value:
                notes.fold_divergence = True
            tree[key] = value
        elif rule is Rule.SET_ONCE or key in SET_ONCE:
            _set_once(tree, key, old, value, notes)
        elif type(old) is dict and type(value) is dict:
            finish(old, value, notes, rule if type(rule) is dict else _NOTHING)
        elif type(old) is Indexed and type(value) is list and all(type(item) is dict for item in value):
            below = rule.get(ENTRIES, _NOTHING) if type(rule) is dict else _NOTHING
            matched = _matched(old.entries, value)
            if not old.entries.keys() <= {index for index, _ in matched}:
                notes.fold_divergence = True
            for index, item in matched:
                finish(old.entries.setdefault(index, {}), _without_index(item), notes, below)
        else:
            _note_conflict(old, value, notes)
            tree[key] = _adopt(value, rule)


# --- checkpoints --------------------------------------------------------------------------------------------

_TEXT, _INDEXED, _INTEGER = 1, 2, 3


def _pack_leaf(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, Text):
        return msgspec.msgpack.Ext(_TEXT, value.encoded())
    if isinstance(value, Indexed):
        return msgspec.msgpack.Ext(_INDEXED, pack(list(value.entries.items())))
    raise TypeError(f"no such leaf in a details tree: {type(value).__name__}")


def _unpack_leaf(code: int, data: memoryview) -> Any:
    if code == _TEXT:
        text = Text()
        text.write(from_bytes(bytes(data)))
        return text
    if code == _INTEGER:
        return int(bytes(data))
    return Indexed(dict(unpack(bytes(data))))


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_pack_leaf).encode


def pack(value: Any) -> bytes:
    """A tree, or plain data that holds trees, as bytes for a checkpoint."""
    try:
        return _encode(value)
    except OverflowError:  # MessagePack ends at 64 bits, JSON does not
        return _encode(_wrap_integers(value))


def _wrap_integers(value: Any) -> Any:
    if type(value) is dict:
        return {key: _wrap_integers(item) for key, item in value.items()}
    if type(value) is list:
        return [_wrap_integers(item) for item in value]
    if type(value) is Indexed:
        return Indexed({index: _wrap_integers(entry) for index, entry in value.entries.items()})
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        return msgspec.msgpack.Ext(_INTEGER, str(value).encode())
    return value


unpack: Final = msgspec.msgpack.Decoder(ext_hook=_unpack_leaf).decode
