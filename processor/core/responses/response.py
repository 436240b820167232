"""A response: its numbers, what it says of itself, and its items. Remembered, checkpointed and forgotten as one.

Numbers and items have to be checkpointed together: a restart that knew the numbers up to one record and an item up to
another could not tell a repeat from news, nor say of which items a missing number may have been.
"""

from __future__ import annotations

from typing import Any, Final

from processor.core.effects import Status
from processor.core.growing_text import Text
from processor.core.merge import pack, unpack
from processor.core.responses.item import PACKED_BEFORE_NUMBERED, Item
from processor.core.responses.mapping import Facts
from processor.core.responses.numbers import SequenceNumbers
from processor.core.responses.text_template import TextTemplate
from processor.core.step_state import StepState
from processor.core.wire_types import RunEnd

PACKED: Final = b"R"
"""The first byte of a packed response; that of a packed run step is another."""
ENTRY: Final = "\0"
"""In front of the response's id in the name of its entry, so that no step's id is taken for it."""


def entry_key(response_id: str) -> str:
    return ENTRY + response_id


class TextCursor:
    """The text that the last delta went to, for the fast path. Any other event of the response ends it.

    `decoded`: how many of its deltas had to be decoded; `piece`: the text of the last of these.
    """

    __slots__ = ("decoded", "item", "piece", "template", "text")

    def __init__(self, item: Item, text: Text) -> None:
        self.item, self.text = item, text
        self.template: TextTemplate | None = None
        self.decoded = 0
        self.piece = ""


class Response(StepState):
    """An open or ended response. `held_bytes` is the size (X1) of the items that are kept."""

    __slots__ = (
        "created_s",
        "cursor",
        "ending",
        "facts",
        "gaps",
        "has_moved",
        "held_bytes",
        "id_bytes",
        "is_shared",
        "items",
        "lacks_numbers",
        "last",
        "numbers",
        "response_id",
        "rotates",
        "unnumbered",
        "unsaid_gap",
    )

    def __init__(self, response_id: str, offset: int, opened_s: int) -> None:
        super().__init__(entry_key(response_id), offset, opened_s)
        self.response_id = response_id
        self.id_bytes = response_id.encode()
        self.items: dict[int, Item] = {}
        self.facts = Facts()
        self.numbers = SequenceNumbers()
        self.gaps = 0
        self.unsaid_gap = False
        """A number is missing, and no item was open then: the next that begins carries it."""
        self.lacks_numbers = False
        """An event had no number, or one that says nothing: the others do not prove that all came."""
        self.unnumbered = 0
        """How many such events have come since the last number."""
        self.last: tuple[int, str, int] = (-1, "", -1)
        """The number, kind and item of the last numbered event that the fast path did not take."""
        self.rotates = False
        """Events call their items by other ids than the items themselves do."""
        self.has_moved = False
        """An item stands at another index than its events say."""
        self.created_s: int | None = None
        """When it was created, as its first lifecycle event that says it does."""
        self.is_shared = False
        """Another response has its name (`shared_name`)."""
        self.ending: RunEnd | None = None
        self.held_bytes = 0
        self.cursor: TextCursor | None = None

    def open_items(self) -> list[Item]:
        """The open items, by index."""
        return [item for _, item in sorted(self.items.items()) if item.status is Status.IN_PROGRESS]

    def weight(self) -> int:
        """Number of open steps that it counts as (X2): those of its items, and one while it has none."""
        return max(1, sum(item.status is Status.IN_PROGRESS for item in self.items.values()))

    def note_gap(self) -> None:
        """A number is missing: of every item that is open, or of the next one."""
        self.gaps += 1
        found = self.open_items()
        for item in found:
            item.add_anomaly("sequence_gap")
        self.unsaid_gap = self.unsaid_gap or not found

    # --- what a partition asks ------------------------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        return self.response_id

    @property
    def fields(self) -> dict[str, Any]:
        return {"run_id": self.response_id, "thread_id": self.facts.thread_id}

    def is_step(self) -> bool:
        return False

    def summary(self) -> tuple[Any, ...]:
        numbers = self.numbers
        items = [
            (item.summary(), item.encoded(""), item.numbered, item.begun, item.said, item.wholes, item.is_carried)
            for _, item in sorted(self.items.items())
        ]
        said = (
            self.lacks_numbers,
            self.unnumbered,
            self.rotates,
            self.has_moved,
            self.last,
            self.created_s,
            self.is_shared,
        )
        gaps = (numbers.next, numbers.missing, self.gaps, self.unsaid_gap)
        return (super().summary(), gaps, said, self.held_bytes, items)

    def peek(self) -> tuple[Any, Any]:
        return self.facts.thread_id, "response"

    def pack(self) -> bytes:
        numbers, facts, ending = self.numbers, self.facts, self.ending
        return PACKED + pack(
            [
                self.response_id,
                self.status.value,
                self.first_offset,
                self.last_offset,
                self.opened_s,
                [facts.thread_id, facts.assistant_id, facts.metadata, facts.mended, self.created_s, self.is_shared],
                [
                    numbers.next,
                    numbers.missing,
                    self.gaps,
                    self.unsaid_gap,
                    self.lacks_numbers,
                    self.unnumbered,
                    self.rotates,
                    self.last,
                ],
                None if ending is None else [ending.status, ending.ended_at, ending.last_error],
                sorted(self.seen) if self.seen is not None else None,
                self.held_bytes,
                self.events,
                [item.packed() for item in self.items.values()],
            ]
        )

    @staticmethod
    def unpack(body: bytes) -> Response:
        """The response that `pack` made these bytes of."""
        response_id, status, first, last, opened_s, facts, numbers, ending, seen, held, events, items = unpack(body[1:])
        response = Response(response_id, first, opened_s)
        response.status, response.last_offset = Status(status), last
        response.facts.thread_id, response.facts.assistant_id, response.facts.metadata = facts[:3]
        if facts[3:]:  # older versions did not say it
            response.facts.mended = facts[3]
        if facts[4:]:
            response.created_s, response.is_shared = facts[4:]
        response.numbers.next, missing, response.gaps, response.unsaid_gap, *more = numbers
        if more:  # older versions did not say it
            response.lacks_numbers, response.unnumbered, response.rotates, last = more
            response.last = tuple(last)
        response.numbers.missing = [(begin, end) for begin, end in missing]
        if ending is not None:
            response.ending = RunEnd(response_id, *ending)
        response.seen = None if seen is None else set(seen)
        response.held_bytes, response.events = held, events
        for packed in items:
            item = Item.unpacked(response_id, response.facts, first, packed)
            if len(packed) == PACKED_BEFORE_NUMBERED:  # by an older version: whatever is late for it stays so
                item.numbered = response.numbers.next
            response.items[item.index] = item
            response.has_moved = response.has_moved or item.said != item.index
        return response
