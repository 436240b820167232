"""Compare steps as the service lists them with what was published of them. Pure.

What the list does not say (null, absent) is no contradiction: lists leave out what streams carry. What the list says
and the published step lacks is one, but for keys that the contract does not have (`usage` and others), which the
service may fill in after the stream has ended. Nor is a time that the published step says was inferred
(`inferred_times`), or an encryption of the same content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from processor.audit.judge.verdicts import Difference, RecordLocation, Verdict
from processor.core.effects import Status
from processor.core.step_state import SCHEMA_KEYS

_OBJECTS: Final = frozenset({"thread.run.step", "assistant.run.step"})
ENDS: Final = frozenset(status.value for status in Status) - {Status.IN_PROGRESS.value}
_LONGEST: Final = 120
_NOTHING: Final[tuple[Any, ...]] = (None, {}, [])
_INFERRED: Final = "inferred_times"
_ENCRYPTED: Final = frozenset({"encrypted_content", "fingerprint"})
"""What is encrypted anew each time that a response is told."""


class PublishedStep(msgspec.Struct, frozen=True):
    """The newest published record of a step.

    Attributes:
        at: topic, partition and offset.
        snapshot: its value.
        inferred: how its end was inferred ("run", "deadline"), "" if an event said it.
        order: (first source offset, revision): the newest of a source partition has the largest.
        timestamp: of the record, in milliseconds.
    """

    at: RecordLocation
    source_partition: int
    order: tuple[int, int]
    snapshot: dict[str, Any]
    inferred: str = ""
    anomalies: tuple[str, ...] = ()
    timestamp: int = 0


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result for one step.

    Attributes:
        listed, published: its status there; None: it is not there.
        not_in_list: paths that were published and the list does not say.
        only_in_list: keys outside the contract that the list has and the published step has not.
    """

    verdict: Verdict
    step_id: str
    run_id: str | None
    listed: str | None
    published: str | None
    at: RecordLocation | None = None
    why: str = ""
    differences: tuple[Difference, ...] = ()
    not_in_list: tuple[str, ...] = ()
    only_in_list: tuple[str, ...] = ()


class Doubt(msgspec.Struct, frozen=True):
    """Reasons why a missing record may have been published, or may still be; "" where there is none.

    Attributes:
        always: whatever the step.
        before_ms, behind_ms: what ended before or behind these times is outside of what was read; None: no bound.
    """

    always: str = ""
    before_ms: int | None = None
    behind_ms: int | None = None

    def of(self, listed: Mapping[str, Any]) -> str:
        if self.always:
            return self.always
        ended_s = _ended_s(listed)
        if ended_s is None:
            return "" if self.before_ms is None and self.behind_ms is None else "when it ended, the list does not say"
        if self.before_ms is not None and ended_s * 1000 < self.before_ms:
            return "it ended before the first record that was read"
        if self.behind_ms is not None and ended_s * 1000 + 999 > self.behind_ms:
            return _TOO_YOUNG
        return ""

    def of_newer(self, listed: Mapping[str, Any], published: PublishedStep) -> str:
        """Why a later revision may be there, which was not read: it cannot be older than the newest one that was."""
        if self.always:
            return self.always
        if self.before_ms is not None and published.timestamp < self.before_ms:
            return "it may have stood before the first record that was read"
        ended_s = _ended_s(listed)
        ended_ms = published.timestamp if ended_s is None else ended_s * 1000 + 999
        return _TOO_YOUNG if self.behind_ms is not None and ended_ms > self.behind_ms else ""


_TOO_YOUNG: Final = "it ended after the last record that was read"


def _ended_s(listed: Mapping[str, Any]) -> int | None:
    found = listed.get(f"{listed.get('status')}_at")
    return found if type(found) is int else None


def latest_s(listed: Mapping[str, Any]) -> int:
    """The latest time, in seconds, at which something happened to a listed step; -1 if it says none."""
    times = (listed.get("created_at"), *(listed.get(f"{status}_at") for status in ENDS))
    return max((at for at in times if type(at) is int), default=-1)


def compare_listed(
    listed: Mapping[str, Any], published: Sequence[PublishedStep], *, reference: str, doubt: Doubt, conflicting: bool
) -> StepResult | None:
    """Compare one listed step; None where it is open in the list and nothing was published: nothing had to be.

    Args:
        published: the newest record of each source partition that has one.
        reference: the reason of a dead letter that stands in place of the record, "" if there is none.
        conflicting: the lists hold it twice, ended, with different contents.
    """
    status = str(listed.get("status"))
    newest = max(published, key=lambda one: one.order, default=None)
    run_id = listed.get("run_id")
    found = StepResult(
        verdict=Verdict.EQUAL,
        step_id=str(listed["id"]),
        run_id=run_id if isinstance(run_id, str) else None,
        listed=status,
        published=None if newest is None else str(newest.snapshot.get("status")),
        at=None if newest is None else newest.at,
    )
    if newest is None:
        if status not in ENDS:
            return None
        why = f"published as a reference: {reference}" if reference else doubt.of(listed)
        return _with(found, Verdict.UNVERIFIABLE if why else Verdict.MISSING, why)
    if conflicting:
        return _with(found, Verdict.UNVERIFIABLE, "the lists hold it twice, with different contents")
    if status not in ENDS:
        return _with(found, Verdict.UNVERIFIABLE, "it had not ended when the list was made")
    if len(published) > 1:
        places = ", ".join(str(one.source_partition) for one in published)
        return _with(found, Verdict.DIFFERENT, f"published from several source partitions: {places}")
    walk = _Walk()
    walk.step(listed, newest.snapshot)
    found = msgspec.structs.replace(
        found,
        differences=tuple(walk.differences),
        not_in_list=tuple(walk.not_in_list),
        only_in_list=tuple(walk.only_in_list),
    )
    if not walk.differences:
        return found
    if why := doubt.of_newer(listed, newest):
        return _with(found, Verdict.UNVERIFIABLE, f"a later revision may say what the list says: {why}")
    return _with(found, Verdict.DIFFERENT, _cause(newest))


def _with(found: StepResult, verdict: Verdict, why: str) -> StepResult:
    return msgspec.structs.replace(found, verdict=verdict, why=why)


def _cause(published: PublishedStep) -> str:
    """Facts in the published record about how it was made: an inferred end, anomalies."""
    causes = [f"its end was inferred ({published.inferred}): no event said it"] if published.inferred else []
    if published.anomalies:
        causes.append(f"published with the anomalies {', '.join(published.anomalies)}")
    return "; ".join(causes)


def not_listed(published: PublishedStep, *, whole: bool, latest_s: int | None = None) -> StepResult:
    """A published step of a listed run that no list holds.

    Args:
        whole: the list of its run is known to be.
        latest_s: the latest time that the list of its run says; None: nothing was added to it since.
    """
    run_id, step_id = published.snapshot.get("run_id"), published.snapshot.get("id")
    created_s = published.snapshot.get("created_at")
    may_be_newer = latest_s is not None and (type(created_s) is not int or created_s >= latest_s)
    why = "its run is listed, and it is not in the list"
    if not whole:
        why = "the list of its run may not be whole"
    elif may_be_newer:
        why = "it began behind all that the list of its run says: the list may be older"
    return StepResult(
        verdict=Verdict.EXTRA if whole and not may_be_newer else Verdict.UNVERIFIABLE,
        step_id=str(step_id),
        run_id=run_id if isinstance(run_id, str) else None,
        listed=None,
        published=str(published.snapshot.get("status")),
        at=published.at,
        why=why,
    )


class _Walk:
    """A step and its published snapshot, side by side."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.not_in_list: list[str] = []
        self.only_in_list: list[str] = []

    def step(self, listed: Mapping[str, Any], published: Mapping[str, Any]) -> None:
        inferred = published.get(_INFERRED) or ()
        for key in sorted(listed.keys() | published.keys() - {_INFERRED}):
            one, two = listed.get(key), published.get(key)
            if key in inferred and two is not None:
                continue
            if key == "object" and one in _OBJECTS and two in _OBJECTS:
                continue  # the two names of the same thing; `output.object_type` may pin one
            if key not in SCHEMA_KEYS and two in _NOTHING and one not in _NOTHING:
                self.only_in_list.append(key)
            else:
                self._value(key, one, two)

    def _value(self, path: str, listed: Any, published: Any) -> None:
        if listed in _NOTHING and published in _NOTHING:
            return
        if listed is None:
            self.not_in_list.append(path)
        elif isinstance(listed, dict) and isinstance(published, dict):
            for key in sorted(listed.keys() | published.keys()):
                if key not in _ENCRYPTED:
                    self._value(f"{path}.{key}", listed.get(key), published.get(key))
        elif isinstance(listed, list) and isinstance(published, list) and len(listed) == len(published):
            for at, (one, two) in enumerate(zip(listed, published, strict=True)):
                self._value(f"{path}[{at}]", one, two)
        elif isinstance(listed, list) and isinstance(published, list):
            self.differences.append(Difference(path, f"{len(listed)} entries", f"{len(published)} entries"))
        elif listed != published or isinstance(listed, bool) != isinstance(published, bool):
            self.differences.append(Difference(path, _short(listed), _short(published)))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def paths_counted(results: Sequence[StepResult], name: str) -> dict[str, int]:
    """Number of steps with a path in `not_in_list` or `only_in_list`, positions in lists left out."""
    found: Counter[str] = Counter()
    for result in results:
        found.update(set(_without_positions(getattr(result, name))))
    return dict(sorted(found.items()))


def _without_positions(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        head, *rest = path.split("[")
        yield head + "".join(f"[]{part.partition(']')[2]}" for part in rest)
