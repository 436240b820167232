"""One event of a Responses stream, read: what it is, of which item, and what it holds."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.core.responses.wire import Place

OF_RESPONSES: Final = "responses/"
"""In front of the kind of an event in the counts of a partition."""

ADDED: Final = "added"
DONE: Final = "done"
PIECES: Final = "pieces"
WHOLES: Final = "wholes"
PART: Final = "part"
PART_DONE: Final = "part_done"
ANNOTATION: Final = "annotation"
LIFE: Final = "life"
END: Final = "end"
ERROR: Final = "error"
SKIP: Final = "skip"
UNKNOWN: Final = "unknown"
BEGINS: Final = "begins"
"""Kind of the lifecycle events that a stream begins with, among those of the last event (`repeats`)."""
NOT_SAID: Final = -1
"""The index of an event that does not say its `output_index`."""
FOREIGN: Final = "foreign"
"""Numbered like the events of a response that is remembered, and none of them."""

OF_ITEMS: Final = frozenset({ADDED, DONE, PIECES, WHOLES, PART, PART_DONE, ANNOTATION})
TOLD: Final = OF_ITEMS | {LIFE, END, ERROR}
"""What has to do with a step."""
INSIDE: Final = frozenset({PIECES, WHOLES, PART, PART_DONE, ANNOTATION})
"""What changes the contents of an item that is open."""


class ResponseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a response. `what` is one of the names above; the rest is set where it belongs to that.

    `index`: as the event says it, `NOT_SAID` where it does not; the fold sets that of the item. `item_id`: what it
    calls its item, "" where it does not. `texts`: the place, the index in its list, and the text. `status`: of an end.
    `begins`: a stream begins with it.
    """

    what: str
    number: int | None
    begins: bool = False
    index: int = 0
    item_id: str = ""
    said: int = NOT_SAID
    """The index that the event says, where it is not that of its item (`placing`)."""
    at: int = 0
    holder: str = ""
    value: Any = None
    texts: tuple[tuple[Place, int, str], ...] = ()
    status: str = ""
    mended: bool = False
    """A half of a surrogate pair was replaced in it."""
