"""One output item as a step: text appends, what is done checks it, the item that is done has the last word."""

from __future__ import annotations

from typing import Any, Final

from processor.core.checkpoint_format import Inference
from processor.core.effects import Status
from processor.core.growing_text import Text
from processor.core.responses.event import NOT_SAID
from processor.core.responses.mapping import Facts, as_error, error_of, step_details, step_type
from processor.core.responses.wire import ALL_PLACES, Place
from processor.core.step_state import SCHEMA_KEYS, StepState
from processor.core.surrogates import as_bytes, from_bytes, holds_half, joined
from processor.core.wire_types import canonical

_BLANK: Final[dict[str, Any]] = dict.fromkeys(SCHEMA_KEYS)
_LISTS: Final = ("content", "summary")
_ANNOTATIONS: Final = "annotations:"
"""In front of the index of a part, in the name of the list of `parts` that holds its annotations."""
PACKED_BEFORE_NUMBERED: Final = 20
"""How many fields a packed item had that did not say the number of its last piece."""
_PACKED_BEFORE_BEGUN: Final = 21
"""How many it had that did not say the number it began with, and the index it was given."""
_PACKED_BEFORE_WHOLES: Final = 23
"""How many it had that did not say what of it is whole."""


class Item(StepState):
    """An output item, open or ended.

    `texts` are what deltas brought, by place and index, `parts` what events of parts brought. An item that has stated
    its end (`is_stated`) keeps neither: nothing that comes later adds to it.
    """

    __slots__ = (
        "began_s",
        "begun",
        "ended_s",
        "facts",
        "incomplete",
        "index",
        "is_carried",
        "is_stated",
        "item",
        "numbered",
        "parts",
        "response_id",
        "said",
        "stated_digest",
        "texts",
        "wholes",
    )

    def __init__(self, response_id: str, index: int, facts: Facts, offset: int, opened_s: int) -> None:
        super().__init__(f"{response_id}:{index}", offset, opened_s)
        self.response_id, self.index, self.facts = response_id, index, facts
        self.item: dict[str, Any] = {}
        self.parts: dict[tuple[str, int], dict[str, Any]] = {}
        self.texts: dict[tuple[str, int], Text] = {}
        self.began_s = opened_s
        self.ended_s: int | None = None
        self.is_stated = False
        self.stated_digest = b""
        self.incomplete: Any = None
        self.numbered = -1
        """The number of the last piece of text; -1 where none had one."""
        self.begun = -1
        """The smallest number that an event of it may have."""
        self.said = index
        """The `output_index` that its events say: another than `index` where another item had that first."""
        self.wholes: set[tuple[str, int]] = set()
        """Texts, and parts, of which an event has said the whole: a piece that comes late is in it already."""
        self.is_carried = False
        """The response's end has said all that it holds, though not how it ended."""

    def own_id(self) -> str:
        """The id that the item says of itself; "" where it has none."""
        found = self.item.get("id")
        return found if type(found) is str else ""

    # --- events ---------------------------------------------------------------------------------------------

    def append(self, place: Place, index: int, piece: str) -> None:
        """Append a piece of text."""
        text = self.texts.get((place.name, index))
        if text is None:
            text = Text()
            text.write(self._begun_with(place, index))
            self.texts[place.name, index] = text
            self.item.setdefault("type", place.item_type)
        text.write(piece)
        self.characters += len(piece)

    def has_whole(self, place: Place, index: int) -> bool:
        """Whether an event has said the whole of a text."""
        return (place.name, index) in self.wholes or (place.holder, index) in self.wholes

    def check(self, place: Place, index: int, whole: str) -> None:
        """Hold a whole text against what its deltas came to. It stands."""
        text = self.texts.get((place.name, index))
        if text is not None and joined(text.getvalue()) == whole:
            self.wholes.add((place.name, index))
            return
        if self._all_of(place) == whole and not any(name == place.name and at != index for name, at in self.wholes):
            return  # each piece was given an index of its own, and no other text was whole by itself
        self.wholes.add((place.name, index))
        if text is not None and not self._comes_to(place, index, text, whole):
            self.add_anomaly("fold_divergence")
        self.item.setdefault("type", place.item_type)
        self.texts[place.name, index] = text = Text()
        text.write(whole)
        self.characters += len(whole)

    def add_part(self, holder: str, index: int, part: dict[str, Any], *, is_done: bool) -> None:
        """Take in a part that opens or is complete. One that is complete has all its annotations."""
        if "type" not in self.item:
            self.item["type"] = (
                "reasoning" if str(part.get("type")) in ("summary_text", "reasoning_text") else "message"
            )
        if is_done:
            self.wholes.add((holder, index))
            for (name, at), text in list(self.texts.items()):
                place = ALL_PLACES[name]
                if place.holder == holder and at == index:
                    whole = part.get(place.field)
                    if type(whole) is str:
                        self.check(place, at, whole)
                    elif text.getvalue():
                        self.add_anomaly("fold_divergence")
            for key in [key for key in self.parts if key[0] == f"{_ANNOTATIONS}{index}" and holder == "content"]:
                del self.parts[key]
        elif (holder, index) in self.parts:
            return
        self.parts[holder, index] = part

    def annotate(self, index: int, at: int, annotation: dict[str, Any]) -> None:
        """Put an annotation into a part, in its place among the others, whichever comes first."""
        self.item.setdefault("type", "message")
        name = f"{_ANNOTATIONS}{index}"
        if at == NOT_SAID:
            held = _member(self.parts.get(("content", index)) or _entry(self.item.get("content"), index), "annotations")
            at = max((known + 1 for holder, known in self.parts if holder == name), default=0)
            at = max(at, len(held) if type(held) is list else 0)
        self.parts[name, at] = annotation

    def end(self, item: dict[str, Any], status: Status, ended_s: int, *, may_be_cut: bool = False) -> None:
        """Let the item that is done have the last word. `may_be_cut`: the end of a text may not have come."""
        for (name, index), text in self.texts.items():
            place = ALL_PLACES[name]
            whole = _found(item, place, index) or ""
            if may_be_cut and self._begins(place, index, text, whole):
                continue
            if not self._comes_to(place, index, text, whole) and self._all_of(place) != _all_found(item, place):
                self.add_anomaly("fold_divergence")
        self.inference, self.is_stated = None, True
        self.status, self.item, self.ended_s = status, item, ended_s
        self.texts, self.parts, self.wholes = {}, {}, set()

    def drop_contents(self) -> None:
        """Forget the contents of what was published, of an item that has stated its end, but for its id and type."""
        self.item = {name: self.item[name] for name in ("id", "type") if name in self.item}

    def _comes_to(self, place: Place, index: int, text: Text, whole: str) -> bool:
        """Whether the deltas come to this text, by themselves or behind what the item began with."""
        folded = joined(text.getvalue())
        return folded == whole or folded[len(self._begun_with(place, index)) :] == whole

    def _all_of(self, place: Place) -> str | None:
        """Join the texts of a place, one index behind the other; None where there are not several."""
        found = sorted((index, text) for (name, index), text in self.texts.items() if name == place.name)
        if len(found) < 2 or place.holder not in _LISTS:
            return None
        return joined("".join(text.getvalue() for _, text in found))

    def _begins(self, place: Place, index: int, text: Text, whole: str) -> bool:
        """Whether this text begins with what the deltas come to."""
        folded = joined(text.getvalue())
        return whole.startswith((folded, folded[len(self._begun_with(place, index)) :]))

    def _begun_with(self, place: Place, index: int) -> str:
        """The text that the item or its part began with, which deltas may add to."""
        part = self.parts.get((place.holder, index)) if place.holder in _LISTS else None
        found = part.get(place.field) if part is not None else _found(self.item, place, index)
        return found if type(found) is str else ""

    # --- what is published ----------------------------------------------------------------------------------

    def whole(self) -> dict[str, Any]:
        """The item with all that deltas and parts brought."""
        if not self.texts and not self.parts:
            return self.item
        item = dict(self.item)
        for holder in _LISTS:
            _overlay_parts(item, holder, self.parts, self.texts)
        for (name, index), text in sorted(self.texts.items(), key=lambda pair: pair[0]):
            place = ALL_PLACES[name]
            if place.holder not in _LISTS:
                _set(item, place, index, joined(text.getvalue()))
        return item

    def told_anomalies(self) -> frozenset[str]:
        if any(holds_half(text.getvalue()) for text in self.texts.values()):
            return self.anomalies | {"replaced_half"}
        return self.anomalies

    def snapshot(self, object_type: str = "") -> dict[str, Any]:
        item, facts = self.whole(), self.facts
        out = dict(_BLANK)
        out["id"], out["object"] = self.step_id, object_type or "thread.run.step"
        out["created_at"], out["run_id"] = self.began_s, self.response_id
        out["thread_id"], out["assistant_id"], out["metadata"] = facts.thread_id, facts.assistant_id, facts.metadata
        out["type"], out["step_details"], out["status"] = step_type(item), step_details(item), self.status.value
        out["last_error"] = error_of(item)
        times = ["created_at"]
        inference = self.inference
        if inference is not None:
            out[f"{self.status.value}_at"] = inference.at_s
            times.append(f"{self.status.value}_at")
            if out["last_error"] is None:
                out["last_error"] = as_error(inference.last_error)
        elif self.status is not Status.IN_PROGRESS:
            out[f"{self.status.value}_at"] = self.ended_s
            times.append(f"{self.status.value}_at")
        out["inferred_times"] = sorted(times)
        if self.incomplete is not None or item.get("status") == "incomplete":
            out["incomplete_details"] = self.incomplete or {"reason": None}
        return out

    def encoded(self, object_type: str) -> bytes:
        return canonical(self.snapshot(object_type))

    # --- what a partition asks ------------------------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        return self.response_id

    @property
    def fields(self) -> dict[str, Any]:
        return {"run_id": self.response_id, "thread_id": self.facts.thread_id}

    def ids(self) -> tuple[Any, Any]:
        return self.response_id, self.facts.thread_id

    def peek(self) -> tuple[Any, Any]:
        return self.facts.thread_id, step_type(self.item)

    def expired_at_disagrees(self) -> bool:
        return False

    # --- checkpoints ----------------------------------------------------------------------------------------

    def packed(self) -> list[Any]:
        """For `Response.pack`."""
        inference = self.inference
        return [
            self.index,
            self.status.value,
            self.item,
            [[name, index, part] for (name, index), part in self.parts.items()],
            [[name, index, _packed_text(text.getvalue())] for (name, index), text in self.texts.items()],
            sorted(self.anomalies),
            self.trace,
            self.last_offset,
            self.opened_s,
            self.began_s,
            self.ended_s,
            None
            if inference is None
            else [inference.how, inference.status.value, inference.at_s, inference.last_error],
            self.events,
            self.revision,
            self.object_bytes,
            self.characters,
            self.oversize,
            self.is_stated,
            self.stated_digest,
            self.incomplete,
            self.numbered,
            self.begun,
            self.said,
            sorted(self.wholes),
            self.is_carried,
        ]

    @staticmethod
    def unpacked(response_id: str, facts: Facts, first_offset: int, packed: list[Any]) -> Item:
        """The item that `packed` gave."""
        item = Item(response_id, packed[0], facts, first_offset, 0)
        item.status, item.item = Status(packed[1]), packed[2]
        item.parts = {(name, index): part for name, index, part in packed[3]}
        for name, index, content in packed[4]:
            text = item.texts[name, index] = Text()
            text.write(from_bytes(content) if isinstance(content, bytes) else content)
        item.anomalies = frozenset(packed[5])
        item.trace = tuple((name, content) for name, content in packed[6])
        item.last_offset, item.opened_s, item.began_s, item.ended_s = packed[7:11]
        inference = packed[11]
        if inference is not None:
            how, status, at_s, last_error = inference
            item.inference = Inference(how, Status(status), at_s, last_error)
        item.events, item.revision, item.object_bytes, item.characters, item.oversize = packed[12:17]
        item.is_stated, item.stated_digest, item.incomplete = packed[17:20]
        if len(packed) > PACKED_BEFORE_NUMBERED:
            item.numbered = packed[20]
        if len(packed) > _PACKED_BEFORE_BEGUN:
            item.begun, item.said = packed[21:23]
        if len(packed) > _PACKED_BEFORE_WHOLES:
            item.wholes, item.is_carried = {(name, index) for name, index in packed[23]}, packed[24]
        return item


def _packed_text(text: str) -> str | bytes:
    """A text as a checkpoint holds it: as bytes where it has half a character, which no string there may."""
    return as_bytes(text) if holds_half(text) or joined(text) != text else text


def _found(item: dict[str, Any], place: Place, index: int) -> str | None:
    """The text at a place of an item; None where there is none."""
    held: Any = item
    if place.holder == "commands":
        held = _entry(_member(item.get("action"), "commands"), index)
        return held if type(held) is str else None
    if place.index:
        held = _entry(item.get(place.holder), index)
    elif place.holder:
        held = item.get(place.holder)
    found = _member(held, place.field)
    return found if type(found) is str else None


def _all_found(item: dict[str, Any], place: Place) -> str:
    """The texts at a place of an item, one index behind the other."""
    held = item.get(place.holder)
    entries = held if type(held) is list else []
    return "".join(_found(item, place, index) or "" for index in range(len(entries)))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if type(value) is dict else None


def _entry(value: Any, index: int) -> Any:
    return value[index] if type(value) is list and index < len(value) else None


def _overlay_parts(
    item: dict[str, Any],
    holder: str,
    parts: dict[tuple[str, int], dict[str, Any]],
    texts: dict[tuple[str, int], Text],
) -> None:
    held = item.get(holder)
    merged: dict[int, Any] = dict(enumerate(held)) if type(held) is list else {}
    merged.update({index: part for (name, index), part in parts.items() if name == holder})
    for (name, index), text in texts.items():
        place = ALL_PLACES[name]
        if place.holder == holder:
            part = merged.get(index)
            known = part if type(part) is dict else {}
            merged[index] = {"type": place.part_type, **known, place.field: joined(text.getvalue())}
    if holder == "content":
        _overlay_annotations(merged, parts)
    if merged:
        item[holder] = [merged[index] for index in sorted(merged)]


def _overlay_annotations(merged: dict[int, Any], parts: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Lay the annotations that came one by one over those that the parts hold."""
    for name, at in sorted(key for key in parts if key[0].startswith(_ANNOTATIONS)):
        index = int(name.removeprefix(_ANNOTATIONS))
        part = merged.get(index)
        known = part if type(part) is dict else {"type": "output_text"}
        held = known.get("annotations")
        found = list(held) if type(held) is list else []
        found[at : at + 1] = [parts[name, at]]
        merged[index] = {**known, "annotations": found}


def _set(item: dict[str, Any], place: Place, index: int, text: str) -> None:
    """Put a text in its place, copying what lies on the way."""
    if place.holder == "commands":
        action = dict(_member(item, "action") or {})
        item["action"] = action
        held = action.get("commands")
        merged = dict(enumerate(held)) if type(held) is list else {}
        merged[index] = text
        action["commands"] = [merged[at] for at in sorted(merged)]
    elif place.index:
        held = item.get(place.holder)
        entries = dict(enumerate(held)) if type(held) is list else {}
        entry = entries.get(index)
        entries[index] = {**(entry if type(entry) is dict else {}), place.field: text}
        item[place.holder] = [entries[at] for at in sorted(entries)]
    elif place.holder:
        inner = item.get(place.holder)
        item[place.holder] = {**(inner if type(inner) is dict else {}), place.field: text}
    else:
        item[place.field] = text
