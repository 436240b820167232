"""Offsets of one partition at which no published step says which rules were in force. Pure.

A published step names its settings, a dead letter does not. In front of the first step of the audited settings, and
behind the last one, others may have been in force: the settings may have been changed at rest, with nothing to show it
but records that were set aside as too large. Such a dead letter, where it disagrees there with the audited settings, is
not provable; and so is what a step that it stands in disagrees in.

How long an ended step or run is remembered (L10) is a setting, too, and a record that names one shows none. So what
follows from an end that is remembered (a later revision, a refused status, the end of a step whose run had ended), and
what would follow if it were forgotten (the step begins anew), is not provable either, where the end or the record
stands there.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from processor.audit.judge.named_steps import steps_in
from processor.audit.judge.published_headers import mark_in, mark_of, offsets_of
from processor.audit.judge.regimes import Regime, regime_of
from processor.audit.judge.verdicts import NEVER, FindingKind, Published, PublishedIndex
from processor.core.effects import DeadLetter, Headers, Publish, Reason, Status
from processor.core.headers import DETAIL, FIRST_OFFSET, INFERRED
from processor.core.partition import PartitionState
from processor.core.responses.response import ENTRY
from processor.core.schema_frames import frame_of

_WHY: Final = "no published step says which rules were in force there (if none but the audited ones: --accept-rules {})"

_DECIDED: Final = frozenset(
    reason.value
    for reason in (
        Reason.UNKNOWN_EVENT,
        Reason.STEP_TOO_LARGE,
        Reason.TOO_MANY_OPEN_STEPS,
        Reason.SNAPSHOT_TOO_LARGE,
    )
)
"""Reasons that are settings: a limit, or what counts as an event."""

_FOLLOWING: Final = frozenset(
    reason.value for reason in (Reason.BAD_INDEX, Reason.ILLEGAL_TRANSITION, Reason.TYPE_CHANGED)
)
"""Reasons that follow from what was refused of the same step before."""


_OF_ENDED: Final = frozenset(reason.value for reason in (Reason.ILLEGAL_TRANSITION, Reason.TYPE_CHANGED))
"""Reasons that a step has ended, and is remembered."""

_LIMITS: Final = frozenset({Reason.STEP_TOO_LARGE, Reason.TOO_MANY_OPEN_STEPS, Reason.SNAPSHOT_TOO_LARGE})
"""Reasons whose detail names a limit."""
_AFTER_RUN: Final = "after_run_ended"
_DETAIL: Final = f"header {DETAIL}"
_OF_TIME: Final = ("timestamp", f"header {FIRST_OFFSET}")


class _Reference(msgspec.Struct, frozen=True, gc=False):
    first_offset: int


class _Named(msgspec.Struct, frozen=True, gc=False):
    run_id: str | None = None


_read_reference: Final = msgspec.json.Decoder(_Reference).decode
_read_named: Final = msgspec.json.Decoder(_Named).decode


class UnnamedSettings:
    """Finds the findings that other settings may explain, where no published step names the settings in force.

    Args:
        index: the published records of the partition. Where it holds no dead letters, no finding is explained so.
        own: fold version and digest of the audited settings.
        others: whether other settings may have been in force at all.
        begin: first offset of the range.
    """

    def __init__(self, index: PublishedIndex, own: Regime, *, others: bool, begin: int) -> None:
        self._index, self._own, self._begin = index, own, begin
        self._others = others and index.holds_dead_letters
        self._why = _WHY.format(own.rules)
        self._agreed: array[int] = array("q")
        """Offsets of dead letters that settings decide and that are equal: in the order of the log, so ascending."""
        self._disagreed: array[int] = array("q")
        """Of those that are implied and not there, or another."""
        self._first = self._last = -1
        """The causes of the first and of the last step that names the audited settings."""
        self._published: list[int] = []
        self._began: dict[tuple[int, int], int] = {}
        """Of clock marks that published steps name: where the first of these steps began."""
        self._steps: tuple[set[str], set[str]] | None = None
        self._doubted: set[str] = set()
        """Steps that were found to be not provable: so are their other revisions."""
        self._has_moved = False
        """Whether a clock mark was taken that is not due under the audited settings."""
        self._is_read = False
        self.waits_for_name = self._others
        """Whether no step was equal yet, so that none has named the settings."""
        self._before: frozenset[str] = frozenset()
        """The ended steps and the runs that were remembered when the first one was."""

    def is_named(self, step_id: str, state: PartitionState) -> None:
        """The first step that is equal: what is remembered besides may have been forgotten, or for how long."""
        self.waits_for_name = False
        ended = {name for name, entry in state.steps.items() if entry.status is not Status.IN_PROGRESS}
        self._before = frozenset(ended | state.runs.keys()) - {step_id}

    def agrees(self, letter: DeadLetter) -> None:
        """A dead letter that is implied is equal."""
        cause = _cause_of(letter)
        if (
            self._others
            and _is_decided(letter.reason, letter.value)
            and not (self._is_read and not self._is_unnamed(cause))
        ):
            self._agreed.append(cause)

    def disagrees(self, letter: DeadLetter) -> str:
        """A dead letter is implied and not there, or another: why that is not provable; "" if it is a difference."""
        cause = _cause_of(letter)
        if self._others and letter.reason in _OF_ENDED:
            names = set(steps_in(letter.key, letter.value, letter.headers))
            if self._may_be_forgotten(cause, names):
                self._doubted |= names
                return self._why
        why = self.of_dead_letter(cause, letter.reason, letter.key, letter.value, letter.headers)
        if why and _is_decided(letter.reason, letter.value):
            if not self._disagreed or self._disagreed[-1] <= cause:
                self._disagreed.append(cause)
            self._doubted.update(steps_in(letter.key, letter.value, letter.headers))
        return why

    def of_dead_letter(self, cause: int, reason: str, key: bytes | None, value: bytes | None, headers: Headers) -> str:
        """Why one that is there and not implied is not provable; "" if it is extra."""
        if not self._others:
            return ""
        if _is_decided(reason, value):
            is_unnamed = self._is_unnamed(cause) or self._is_of_step_from_there(reason, key, value, headers)
            return self._why if is_unnamed else ""
        if reason.partition(" ")[0] not in _FOLLOWING:
            return ""
        if reason.partition(" ")[0] in _OF_ENDED and not self._first <= cause <= self._last:
            return self._why  # an end that is forgotten here may have been remembered for longer
        refused = self._doubted | self._read_steps()[1]
        return self._why if any(step_id in refused for step_id in steps_in(key, value, headers)) else ""

    def _is_of_step_from_there(self, reason: str, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Whether it is of a step that began where settings are not named: what that holds may come from there."""
        if reason.startswith(Reason.SNAPSHOT_TOO_LARGE.value):
            first = _first_offset_in(value)
            return first is not None and self._is_unnamed(first)
        begun, refused = self._read_steps()
        return any(step_id in begun or step_id in refused for step_id in steps_in(key, value, headers))

    def _read_steps(self) -> tuple[set[str], set[str]]:
        """The published steps that began where settings are not named, and those that were refused something there."""
        if self._steps is None:
            begun: set[str] = set()
            refused: set[str] = set()
            for one in self._index.all():
                first, cause = offsets_of(one)
                if one.kind is FindingKind.STEP:
                    if first is not None and self._is_unnamed(first):
                        begun.add(one.identity[0])
                elif _is_decided(one.identity[1], one.value) and cause is not None and self._is_unnamed(cause):
                    refused.update(steps_in(one.key, one.value, one.headers))
            self._steps = begun, refused
        return self._steps

    def of_step(self, step_id: str, first: int, cause: int, *, by_deadline: bool = False) -> str:
        """Why a step that began and ended at these offsets may be another under the settings in force; "" if not.

        Args:
            by_deadline: a deadline ended it at another time: the settings where it began have set that.
        """
        if not self._others:
            return ""
        is_doubted = step_id in self._doubted or (by_deadline and self._is_unnamed(first))
        if not is_doubted and not self._has_doubtful(first, cause):
            return ""
        self._doubted.add(step_id)
        return self._why

    def of_missing(self, effect: Publish, first: int, cause: int) -> str:
        """Why an implied step that is not there is not provable; "" if it is missing."""
        if not self._others:
            return ""
        self._read()
        is_open = effect.inferred == "deadline" and self._is_unnamed(first)
        if is_open or self._hangs_on_memory(effect, cause) or self._has_ended_before(effect, first):
            self._doubted.add(effect.step_id)
        return self.of_step(effect.step_id, first, cause)

    def _hangs_on_memory(self, effect: Publish, cause: int) -> bool:
        """Whether it follows from an end that is remembered, and that other settings may have forgotten."""
        if effect.revision:
            return self._may_be_forgotten(cause, (effect.step_id,))
        return _AFTER_RUN in effect.anomalies and self._may_be_forgotten(cause, (_run_in(effect.value),))

    def _may_be_forgotten(self, cause: int, names: Iterable[str]) -> bool:
        """Whether an end of these steps or runs may be forgotten at this offset: between the two, other settings may
        have been in force."""
        self._read()
        is_before = self.waits_for_name and self._begin <= self._first
        return cause > self._last or is_before or not self._before.isdisjoint(names)

    def _has_ended_before(self, effect: Publish, first: int) -> bool:
        """Whether a step that begins behind the last one under the audited settings was published before: other
        settings may remember that, and leave what repeats it alone."""
        if first <= self._last:
            return False
        earlier = self._index.all_of(FindingKind.STEP, (effect.step_id, "0"))
        return any((offsets_of(one)[1] or 0) < first for one in earlier)

    def between(
        self, effect: Publish | DeadLetter, first: int, cause: int, there: Sequence[Published], paths: set[str]
    ) -> str:
        """Why a published record that differs from the implied one is not provable; "" if it is a difference.

        Of a dead letter, settings change the limit that it names, and no more.

        Args:
            first, cause: of what is implied.
            there: the published records of the same identity.
            paths: the fields that differ.
        """
        if isinstance(effect, DeadLetter):
            return self.disagrees(effect) if effect.reason in _LIMITS and paths == {_DETAIL} else ""
        ended = {effect.inferred, *(_text(dict(one.headers).get(INFERRED)) for one in there)}
        by_deadline = "deadline" in ended and not paths.isdisjoint(_OF_TIME)
        if self._others and self._hangs_on_memory(effect, cause):
            self._doubted.add(effect.step_id)
        for one in there:
            begun, caused = offsets_of(one)
            first, cause = min(first, begun or 0), max(cause, caused or 0)
        return self.of_step(effect.step_id, first, cause, by_deadline=by_deadline)

    def may_have_set(self, mark: tuple[int, int], state: PartitionState) -> bool:
        """Whether a clock mark that is not due under the audited settings may have been under those in force.

        It may where it ended a step that they matter to, or where such a step would be due before it: one that was
        refused under them, too, which is open here.
        """
        if not self._others:
            return False
        self._read()
        first = self._began.get(mark)
        if first is None:
            return False
        # What such a mark ended is open here for longer, and due before later marks.
        is_new = bool(self._doubted) or self._is_unnamed(first) or self._has_doubtful(first, mark[0] - 1)
        due_ms = state.next_due_ms()
        if not is_new and due_ms is not None and due_ms < mark[1]:
            deadlines = state.deadlines()
            due = {step_id.removeprefix(ENTRY) for step_id in deadlines[min(deadlines)]}
            is_new = not due.isdisjoint(self._read_steps()[1])
        self._has_moved = self._has_moved or is_new
        return self._has_moved

    def _has_doubtful(self, first: int, cause: int) -> bool:
        """Whether a dead letter that disagrees stands there, where settings are not named."""
        self._read()
        if _between(self._disagreed, first, cause):
            return True
        return _between(self._published, first, cause) > _between(self._agreed, first, cause)

    def _is_unnamed(self, offset: int) -> bool:
        """The offsets at the very ends are: between a record and a clock mark behind it settings may change."""
        self._read()
        return not self._first < offset < self._last

    def _read(self) -> None:
        """Look through the published records, once, where something disagrees: of nearly all logs nothing does."""
        if self._is_read:
            return
        self._is_read = True
        first, last = NEVER, -1
        letters: list[int] = []
        for one in self._index.all():
            begun, cause = offsets_of(one)
            if begun is None or cause is None or cause < begun:
                continue
            if one.kind is FindingKind.DEAD_LETTER:
                if _is_decided(one.identity[1], one.value):
                    letters.append(cause)
            elif regime_of(dict(one.headers)) == self._own:
                first, last = min(first, cause), max(last, cause)
            mark = mark_of(one)
            if mark is not None:
                self._began[mark] = min(self._began.get(mark, NEVER), begun)
        self._first, self._last = first, last
        self._published = sorted(offset for offset in letters if not first < offset < last)
        kept = [offset for offset in self._agreed if not first < offset < last]
        self._agreed = array("q", kept)


def _cause_of(letter: DeadLetter) -> int:
    """As `offsets_of` reads it: of one that a clock mark caused, the offset before that."""
    mark = mark_in(dict(letter.headers))
    return letter.offset if mark is None else mark[0] - 1


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "backslashreplace")


def _run_in(snapshot: bytes) -> str:
    try:
        return _read_named(snapshot).run_id or ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _is_decided(reason: str, value: bytes | None) -> bool:
    return reason.partition(" ")[0] in _DECIDED or frame_of(value or b"") is not None


def _first_offset_in(reference: bytes | None) -> int | None:
    """The first offset of the step that a dead letter refers to, as far as it can be read."""
    try:
        return _read_reference(reference or b"").first_offset
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _between(offsets: Sequence[int], first: int, last: int) -> int:
    """Count the offsets, which ascend, from `first` to `last`."""
    return bisect_right(offsets, last) - bisect_left(offsets, first)
