"""Run templates: events about a run, known by the bytes around ids and times, the same for all runs of an assistant.

The object of a run has instructions, tools and settings beside the three fields that matter here, and reading over them
takes longer than folding ten deltas. A template is learned from data that was read in full. What matches is the same
JSON but for ids and numbers, so that it says the same about its own run (docs/decisions/0044).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.core.json_bytes import nests_deeper
from processor.core.learned_bytes import LearnedBytes
from processor.core.named_events import IGNORED, MAX_DEPTH, MAX_ID, RUN_NAMES
from processor.core.run_steps.object_shape import NOWHERE, Frame, Shape
from processor.core.run_steps.object_template import Path, id_and_number_holes, places_of
from processor.core.wire_types import Ignored, RunEnd, read_any

_LAYOUTS: Final = ((b'{"event":"thread.run.', b'","data":'), (b'{"event": "thread.run.', b'", "data": '))
"""What stands in front of a run's name and behind it, in the two layouts of JSON that nearly all programs write."""
_LONGEST_NAME: Final = max(map(len, RUN_NAMES))
_MAX_TEMPLATES: Final = 4
"""How many are kept of each name: a topic has few assistants at work at a time. One that is learned later takes the
place of that which did not match for longest."""
_MOST_BYTES: Final = 128 << 10
"""Of all that are learned: assistants may have long instructions, and steps need the rest of what may be learned."""
_ATTEMPTS: Final = 256
"""How many are learned, or failed to be, before nothing more is."""
_IS_COMPILED: Final = not __file__.endswith(".py")
_NOTHING: Final = b""


class RunTemplate:
    """Template of events that say the same of their runs. `status`: the one that the run ends with; "": it goes on."""

    __slots__ = ("disagrees", "ended_at", "ended_place", "id_place", "shape", "status")

    def __init__(self, shape: Shape, places: list[Path], found: RunEnd | Ignored) -> None:
        self.shape = shape
        self.status, self.disagrees, self.ended_at = "", False, None
        self.id_place = self.ended_place = -1
        if isinstance(found, RunEnd):
            self.status, self.disagrees, self.ended_at = found.status, found.disagrees, found.ended_at
            self.id_place = places.index(("id",))
            ended_at = (f"{found.status}_at",)
            self.ended_place = places.index(ended_at) if ended_at in places else -1

    def read(self, data: bytes) -> RunEnd | Ignored | None:
        """Read an event of this template; None: it is not of it."""
        cuts = self.shape.cut(data)
        if cuts is None:
            return None
        if not self.status:
            return IGNORED
        run_id = cuts[self.id_place].decode("ascii")
        if not 0 < len(run_id) <= MAX_ID:
            return None
        ended_at = self.ended_at if self.ended_place < 0 else int(cuts[self.ended_place])
        return RunEnd(run_id, self.status, ended_at, None, self.disagrees)


class RunTemplates:
    """The run templates of a partition's producers.

    `is_used`: not in Python, where to match takes as long as to decode.
    """

    __slots__ = ("_attempts", "_by_name", "_learned", "_left", "is_used")

    def __init__(self, learned: LearnedBytes) -> None:
        self._learned, self._left = learned, _MOST_BYTES
        self.is_used = _IS_COMPILED
        self._by_name: dict[str, list[RunTemplate]] = {}
        """The one that matched last comes first. Bare objects have the name ""."""
        self._attempts = _ATTEMPTS

    def read(self, name: str, data: bytes) -> RunEnd | Ignored | None:
        """The event of a name (`completed`; "": a bare object) with this data; None: it has to be decoded."""
        templates = self._by_name.get(name)
        if templates is None:
            return None
        for number, template in enumerate(templates):
            found = template.read(data)
            if found is not None:
                if number > 0:
                    templates.insert(0, templates.pop(number))
                return found
        return None

    def learn(self, name: str, data: bytes, found: RunEnd | Ignored) -> None:
        """Learn from data that was decoded as `found`."""
        if self._attempts <= 0 or not self.is_used:
            return
        self._attempts -= 1
        template = _template_of(data, found)
        size = 0 if template is None else template.shape.size()
        if template is None or size > self._left or not self._learned.take(size):
            return
        self._left -= size
        templates = self._by_name.setdefault(name, [])
        templates.insert(0, template)
        del templates[_MAX_TEMPLATES:]


def named_run(value: bytes) -> tuple[str, bytes] | None:
    """The name and the data of a value that is an event about a run in one of the usual layouts; its data is not read.

    The name has no `thread.run.` in front.
    """
    for front, middle in _LAYOUTS:
        if not value.startswith(front):
            continue
        begin = len(front)
        end = value.find(b'"', begin, begin + _LONGEST_NAME + 1)
        if end < 0 or not value.startswith(middle, end) or not value.endswith(b"}"):
            return None
        name = value[begin:end].decode("latin-1")
        return (name, value[end + len(middle) : -1]) if name in RUN_NAMES else None
    return None


def _template_of(data: bytes, found: RunEnd | Ignored) -> RunTemplate | None:
    """Make a template of an event; None: no usable one. It has to read the same in every envelope."""
    if isinstance(found, RunEnd) and found.last_error is not None:
        return None
    try:
        if nests_deeper(data, MAX_DEPTH):
            return None
        holes = id_and_number_holes(data)
        places = places_of(data, holes, read_any, keeps_texts=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if places is None or (isinstance(found, RunEnd) and ("id",) not in places):
        return None
    asked: tuple[Any, ...] = (("id",), (f"{found.status}_at",)) if isinstance(found, RunEnd) else ()
    spots = bytes(number if path in asked else NOWHERE for number, path in enumerate(places))
    return RunTemplate(Shape(data, holes, Frame([_NOTHING] * len(holes), spots)), places, found)
