"""Usual events: values in one of the commonest shapes, read faster than `core.events.decode` reads them.

Whatever these functions accept, `decode` reads as the same event. None says that `decode` has to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.core.effects import Status
from processor.core.json_bytes import MAX_NESTING, nests_deeper
from processor.core.lifecycle import TERMINAL, Kind
from processor.core.named_events import (
    MAX_DEPTH,
    RUN_EVENT,
    RUN_NAMES,
    STEP_EVENT,
    STEP_NAMES,
    BadRecordError,
    check_utf8,
    is_id,
    run_of,
    step_of,
)
from processor.core.wire_types import (
    ExactData,
    ExactStep,
    Ignored,
    RunEnd,
    StatedStep,
    StepDelta,
    StepObject,
    ToolStep,
    exact_delta,
    named_object,
    read_any,
    read_exact_step,
    read_named_run,
    read_tool_step,
)

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_CREATED, _STATED, _IN_PROGRESS, _DELTA = Kind.CREATED, Kind.STATED, Kind.IN_PROGRESS, Kind.DELTA
_OPEN_STATUS: Final = Status.IN_PROGRESS.value
_BY_STATUS: Final[Mapping[str, Kind]] = {
    _OPEN_STATUS: _STATED,
    **{status.value: Kind(status.value) for status in TERMINAL},
}
"""What a bare object says by its status."""
_STEP_BYTES: Final = STEP_EVENT.encode()
_STEP_EVENTS: Final[Mapping[str, Kind]] = {STEP_EVENT + name: kind for name, kind in STEP_NAMES.items()}
_FIRST: Final = 40  # known producers write the event's name within so many bytes
_STEP_PREFIXES: Final = (b'{"event":"thread.run.step.', b'{"event": "thread.run.step.')
_RUN_PREFIXES: Final = (b'{"event":"thread.run.', b'{"event": "thread.run.')


_astuple: Final = msgspec.structs.astuple
_FIELDS: Final = StatedStep.__struct_fields__
DETAILS: Final = _FIELDS.index("step_details")
EXPIRED_AT: Final = _FIELDS.index("expired_at")
EXPIRES_AT: Final = _FIELDS.index("expires_at")
OBJECT: Final = _FIELDS.index("object")
RUN_ID: Final = _FIELDS.index("run_id")
TYPE: Final = _FIELDS.index("type")
_ID: Final = _FIELDS.index("id")
_STATUS: Final = _FIELDS.index("status")
"""Where a field stands in `ExactObject.told`."""


class ExactObject:
    """A step object whose name and status agree. `data` is its JSON text, `stated` the same read.

    `told` are the fields of `stated` as a tuple: a compiled program reads from it at a fraction of the cost.
    """

    __slots__ = ("data", "kind", "stated", "step_id", "told")

    def __init__(self, kind: Kind, stated: ExactStep, data: bytes, step_id: str, told: tuple[Any, ...]) -> None:
        self.kind, self.stated, self.data, self.step_id, self.told = kind, stated, data, step_id, told


class EventPrefix:
    """The beginning of a value: which event, and where its data begins.

    `status` is the one that such an object ends a step with, if it does; `number` counts these prefixes.
    """

    __slots__ = ("data", "head", "kind", "number", "status")

    def __init__(self, kind: Kind, head: bytes, number: int) -> None:
        self.kind, self.head, self.data, self.number = kind, head, len(head), number
        self.status = ENDS.get(kind)


ENDS: Final[Mapping[Kind, Status]] = {Kind(status.value): status for status in TERMINAL}
"""The status of a step that an event of a kind ends."""
_LAYOUTS: Final = [
    (kind, f'{{"event"{colon}"{STEP_EVENT}{kind.value}"{comma}"data"{colon}'.encode())
    for colon, comma in ((":", ","), (": ", ", "))
    for kind in (Kind.DELTA, *STEP_NAMES.values())
]
"""What stands in front of the data in the two layouts of JSON that nearly all programs write."""
_PREFIXES: Final = [EventPrefix(kind, head, number) for number, (kind, head) in enumerate(_LAYOUTS)]
PREFIXES: Final = len(_PREFIXES)
_SLOTS: Final = 64


def _slot(value: bytes) -> i64:
    """A number below `_SLOTS` by two bytes of an event's name; such numbers of the usual prefixes differ."""
    first: i64 = value[27]
    second: i64 = value[28]
    return first * 9 + second & _SLOTS - 1


_BY_SLOT: Final = [next((prefix for prefix in _PREFIXES if _slot(prefix.head) == slot), None) for slot in range(_SLOTS)]
assert len(_BY_SLOT) - _BY_SLOT.count(None) == len(_PREFIXES)


def prefix_of(value: bytes) -> EventPrefix | None:
    """The prefix of an event about a step, if it has one of the two usual layouts; else None."""
    if len(value) < _FIRST:
        return None
    found = _BY_SLOT[_slot(value)]
    return found if found is not None and value.startswith(found.head) and value.endswith(b"}") else None


def run_event(value: bytes) -> RunEnd | Ignored | None:
    """The event about a run in `value`, if it has the commonest form; None says: use `decode`, which reads the same."""
    if not value.startswith(_RUN_PREFIXES) or value.startswith(_STEP_PREFIXES) or nests_deeper(value, MAX_NESTING):
        return None
    try:
        found = read_named_run(value)
        check_utf8(value)
        name = found.event.removeprefix(RUN_EVENT)
        return run_of(found.data, name) if name in RUN_NAMES and found.event.startswith(RUN_EVENT) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadRecordError):
        return None


def exact(value: bytes, head: EventPrefix | None) -> ExactData | ExactObject | StepObject | None:
    """The delta or step object in `value` if it has one of the commonest shapes exactly; None says: use `decode`.

    It is faster than `decode` and gives no other result: whatever this accepts, `decode` reads as the same event.

    Args:
        head: what `prefix_of` says of the value.
    """
    try:
        if head is not None:
            if head.kind is _DELTA:
                return exact_delta(value).data
            found = exact_object(value[head.data : -1], head.kind)
            if found is not None:
                return found
        return named_event(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def named_event(value: bytes) -> ExactData | StepObject | None:
    """The delta or step object in `value` if its name comes first and it has no other form than the wire's."""
    try:
        at = value.find(_STEP_BYTES, 0, _FIRST)
        if at < 0:
            return None
        if value.startswith(b"delta", at + len(_STEP_BYTES)):
            return exact_delta(value).data
        other = named_object(value)
        named = _STEP_EVENTS.get(other.event)
        if named is None or value.count(b"{") + value.count(b"[") > MAX_DEPTH:
            return None
        return step_of(other.data, named)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadRecordError):
        return None


def exact_object(data: bytes, named: Kind | None) -> ExactObject | None:
    """The object if it has the exact shape and says what its name says; without a name its status names it."""
    try:
        stated = read_exact_step(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    told = _astuple(stated)
    status: str = told[_STATUS]
    kind = _BY_STATUS.get(status) if named is None else named
    opens = kind is _CREATED or kind is _IN_PROGRESS or kind is _STATED
    if kind is None or status != (_OPEN_STATUS if opens else kind):
        return None
    step_id: str = told[_ID]
    return ExactObject(kind, stated, data, step_id, told) if is_id(step_id) else None


def tool_step(data: bytes, named: Kind | None) -> ToolStep | None:
    """The ending object with calls of any tools, if it has no other oddity and says what its name says, if any."""
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        return None
    try:
        stated = read_tool_step(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    status = stated.status
    return stated if status == (_BY_STATUS.get(status) if named is None else named) else None


def general(event: ExactData | ExactObject) -> StepDelta | StepObject | None:
    """An exact event in the general form; None where the slow path has something to say about its id."""
    if isinstance(event, ExactObject):
        return StepObject(event.kind, event.step_id, read_any(event.data))
    if not is_id(event.id):
        return None
    return StepDelta(event.id, msgspec.to_builtins(event.delta.step_details))
