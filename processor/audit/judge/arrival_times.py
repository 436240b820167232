"""Findings that an archive of Event Hubs Capture, or one without headers, cannot decide. Pure.

A capture keeps the time at which a record arrived in place of the record's own, and one header of each name. Of the
source this leaves open all that follows from record times: the timestamp of what is published, times that are inferred
from records, when a deadline fired, and whether an ended step or run was still remembered (L10). Which events of a step
were folded into a record does not follow from times: where both sides began at the same offset and name as many events,
what these gave is decided.

Of the output it leaves open the timestamps and the order of headers. Without the headers of the source nothing that
disagrees is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from processor.audit.judge.differences import differences
from processor.audit.judge.named_steps import steps_in
from processor.audit.judge.published_headers import offsets_of
from processor.audit.judge.segments import STATEFUL
from processor.audit.judge.verdicts import (
    Difference,
    ExpectedRecord,
    FindingKind,
    Published,
    PublishedIndex,
    read_created,
)
from processor.core.effects import REFERENCES, DeadLetter, Headers, Publish, Reason
from processor.core.header_names import shown
from processor.core.headers import (
    ANOMALIES,
    CE_ID,
    CE_TYPE,
    CLOCK_MARK,
    DETAIL,
    DIGEST,
    EVENTS,
    FIRST_OFFSET,
    INFERRED,
    LAST_OFFSET,
    REASON,
    SOURCE_TIMESTAMP,
    TRACE,
)

_STEP: Final = FindingKind.STEP
_DEADLINE: Final = b"deadline"
_AFTER_RUN: Final = b"after_run_ended"
_HIDING: Final = REFERENCES | {Reason.TOO_MANY_OPEN_STEPS}
_ENDS: Final = tuple(f"value.{status}_at" for status in ("completed", "failed", "cancelled", "expired"))
_OUTPUT: Final = "the archive of the output (Event Hubs Capture) has times of arrival and no order of headers"
_TIMES: Final = "the archive of the source (Event Hubs Capture) has times of arrival, and not the records' own"
_HEADERS: Final = f"{_TIMES}, and one header of each name"
_NO_HEADERS: Final = (
    "the archive of the source has no headers: ids by which repeats are known, attributes of CloudEvents and what a "
    "dead letter has of them may have been there"
)
_FOLLOWS: Final = f"{_TIMES}: deadlines, and what is remembered of an end, may have come out otherwise"


def _paths(*headers: str) -> frozenset[str]:
    return frozenset(f"header {name}" for name in headers)


_OF_STEP: Final = _paths(*TRACE) | {"timestamp"}
_OF_DEADLINE: Final = _paths(LAST_OFFSET, CLOCK_MARK)
_OF_END: Final = _OF_DEADLINE | _paths(INFERRED, ANOMALIES, CE_TYPE) | {
    *_ENDS, "value.status", "value.last_error", "value.incomplete_details", "value.inferred_times",
    *(f"value.inferred_times[{at}]" for at in range(2)), "topic", "partition",
}  # fmt: skip
"""Fields that differ where a step came to its end in different ways."""
_SAID_OF_END: Final = ("value.last_error.", "value.incomplete_details.")
_OF_RESPONSE: Final = ("value.thread_id", "value.assistant_id", "value.metadata")
"""Fields of an output item that tell of its response, as far as that had come when the item ended."""


class ArrivalTimes:
    """Decides which findings the times and headers of a capture leave open.

    Args:
        of_source: the records of the source come from a capture, all or some of them.
        lacks_headers: the source comes from an archive without headers, all of it or some.
        outputs: (topic, partition) of the outputs whose records do.
        hides_ends: ends of steps need not be published, as the topic of an outcome is switched off.
    """

    def __init__(
        self,
        index: PublishedIndex,
        *,
        of_source: bool = False,
        lacks_headers: bool = False,
        outputs: Collection[tuple[str, int]] = (),
        hides_ends: bool = False,
    ) -> None:
        self._index, self.of_source, self._outputs = index, of_source, frozenset(outputs)
        self._lacks_headers, self._hides_ends = lacks_headers, hides_ends
        self._hidden: set[str] | None = None

    def between(
        self,
        effect: Publish | DeadLetter,
        forms: Sequence[ExpectedRecord],
        near: Published,
        fields: Sequence[Difference],
    ) -> str:
        """Why a published record that differs from the implied one is not provable; "" if it is a difference.

        Args:
            forms: the records that the effect may become, the whole one first; `fields` differ from that.
        """
        if self._lacks_headers:
            return _NO_HEADERS
        is_of_output = (near.topic, near.partition) in self._outputs
        if not (self.of_source or is_of_output):
            return ""
        if isinstance(effect, DeadLetter):
            return self._between_letters(effect, forms, near, is_of_output)
        paths = {field.path for field in fields}
        free = {"timestamp", "headers"} if is_of_output else set[str]()
        if not self.of_source:
            return _OUTPUT if paths <= free else ""
        return self._between_steps(effect, forms[0], near, paths, free)

    def _between_letters(
        self, effect: DeadLetter, forms: Sequence[ExpectedRecord], near: Published, is_of_output: bool
    ) -> str:
        free = {"timestamp", "headers"}
        if self.of_source:
            free |= _paths(SOURCE_TIMESTAMP)
        if self.of_source and effect.reason in STATEFUL:
            free |= _paths(DETAIL)
        for form in forms:
            own = {f"header {shown(name)}" for name in self._lossy_names(form.headers, near.headers)}
            paths = {field.path for field in differences(form, near)} - free - own
            if self.of_source and effect.reason in REFERENCES:
                paths = {path for path in paths - _OF_DEADLINE if not path.startswith("value.")}
            if not paths:
                return _HEADERS if self.of_source else _OUTPUT
        return ""

    def _lossy_names(self, implied: Headers, there: Headers) -> set[str]:
        """Names of a dead letter's headers that may have had other contents on its topic, or in its record."""
        own = list(_own_names(implied))
        if self.of_source:
            return {*own, *_own_names(there)}
        return {name for name, count in Counter(own).items() if count > 1}

    def _between_steps(
        self, effect: Publish, expected: ExpectedRecord, near: Published, paths: set[str], free: set[str]
    ) -> str:
        implied, there = dict(effect.headers), dict(near.headers)
        first = offsets_of(near)[0]
        if first is None or b"%d" % first != implied[FIRST_OFFSET]:
            return self._of_memory(effect.step_id, max(first or 0, int(implied[FIRST_OFFSET])), near.value)
        ways = _way_of(implied), _way_of(there)
        times = _inferred_times(expected.value)
        if implied.get(EVENTS) != there.get(EVENTS):
            return _FOLLOWS if any(ways) or effect.revision else ""
        free |= _OF_STEP
        if ways[0] == ways[1] == _DEADLINE:
            free |= _OF_DEADLINE
        elif any(ways):  # a run may have ended twice, and another end be remembered
            free |= _OF_END | {path for path in paths if path.startswith(_SAID_OF_END)}
        if times and any(ways):
            free |= _paths(ANOMALIES) | {path for path in paths if path.startswith(_OF_RESPONSE)}
        if effect.inferred is not None:
            free.add(f"value.{effect.status.value}_at")
        free |= {f"value.{name}" for name in times}
        digest = sha256(near.value or b"").hexdigest().encode()
        if digest == there.get(DIGEST):
            free |= _paths(DIGEST)
            if _is_id_of(there.get(CE_ID), implied.get(CE_ID), digest):
                free |= _paths(CE_ID)
        return _TIMES if paths <= free else ""

    def of_missing(self, effect: Publish | DeadLetter, first: int, cause: int) -> str:
        """Why an implied record that is not there is not provable; "" if it is missing."""
        if not self.of_source or self._lacks_headers:
            return _NO_HEADERS if self._lacks_headers else ""
        if isinstance(effect, DeadLetter):
            if effect.reason in _HIDING:
                self._read_hidden().update(_named(effect.reason, effect.key, effect.value, effect.headers))
            return _FOLLOWS if effect.reason in STATEFUL else ""
        if effect.revision or _way_of(dict(effect.headers)):
            return _FOLLOWS
        return self._of_memory(effect.step_id, first, effect.value)

    def of_left(self, published: Published, first: int) -> str:
        """Why a record that is there and not implied is not provable; "" if it is extra.

        What a worker publishes once, whatever the times, is extra where it is there again.
        """
        if not (self.of_source or self._lacks_headers):
            return ""
        kind, identity = published.kind, published.identity
        same = [one for one in self._index.all_of(kind, identity) if offsets_of(one)[0] == first]
        if kind is FindingKind.DEAD_LETTER:
            is_again = sum((one.key, one.value) == (published.key, published.value) for one in same) > 1
            if not is_again and self._lacks_headers:
                return _NO_HEADERS
            return "" if is_again or _reason_of(published) not in STATEFUL else _FOLLOWS
        if len(same) > 1 or self._lacks_headers:
            return _NO_HEADERS if len(same) == 1 else ""
        if _way_of(dict(published.headers)):
            return _FOLLOWS
        if identity[1] != "0":
            is_further = self._hides_ends or self._index.all_of(_STEP, (identity[0], "0"))
            return _FOLLOWS if is_further else self._of_memory(identity[0], first, published.value)
        return self._of_memory(identity[0], first, published.value)

    def _of_memory(self, step_id: str, first: int, value: bytes | None) -> str:
        """Why a step that begins there, on one side alone, may be one that the other remembers; "" if it cannot be."""
        if self._hides_ends or "created_at" in _inferred_times(value) or step_id in self._read_hidden():
            return _FOLLOWS
        earlier = self._index.all_of(_STEP, (step_id, "0"))
        return _FOLLOWS if any((offsets_of(one)[0] or 0) < first for one in earlier) else ""

    def _read_hidden(self) -> set[str]:
        """The steps of which dead letters stand in the place of what would have been published."""
        if self._hidden is None:
            self._hidden = set()
            for one in self._index.all():
                if one.kind is FindingKind.DEAD_LETTER and _reason_of(one) in _HIDING:
                    self._hidden.update(_named(_reason_of(one), one.key, one.value, one.headers))
        return self._hidden


def _reason_of(letter: Published) -> str:
    return letter.identity[1].partition(" ")[0]


def _named(reason: str, key: bytes | None, value: bytes | None, headers: Headers) -> Iterator[str]:
    if reason in REFERENCES:
        yield (key or b"").decode("utf-8", "backslashreplace")
    yield from steps_in(key, value, headers)


def _own_names(headers: Headers) -> Iterator[str]:
    """Names of the headers that a dead letter has from its record: those in front of the worker's."""
    for name, _ in headers:
        if name == REASON:
            return
        yield name


def _way_of(headers: Mapping[str, bytes | None]) -> bytes:
    """The way in which a step came to its end, where that follows from times; b"" where it does not."""
    if headers.get(INFERRED) == _DEADLINE:
        return _DEADLINE
    return _AFTER_RUN if _AFTER_RUN in (headers.get(ANOMALIES) or b"").split(b",") else b""


def _inferred_times(value: bytes | None) -> list[str]:
    """The times of an output item that are those of records."""
    try:
        found = read_created(value or b"").inferred_times
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    return [name for name in found if type(name) is str] if type(found) is list else []


def _is_id_of(told: bytes | None, implied: bytes | None, digest: bytes) -> bool:
    """Whether the id of a published event is the implied one, but for the digest in it."""
    parts, wanted = (told or b"").rpartition(b"-"), (implied or b"").rpartition(b"-")
    return parts[0] == wanted[0] and bool(parts[2]) and digest.startswith(parts[2])
