"""Records of a response, as `publish` and other producers write them, with the faults generated after each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final, NamedTuple

from processor.simulate.expected import Expected
from processor.simulate.parameters import Parameters
from processor.simulate.responses.run import ResponseEvent, ResponseRun
from processor.simulate.texts import Mix

ENVELOPES: Final = ("bare", "event", "sse", "sse_many")
"""The forms of a record that Responses travel in."""

_compact: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_spaced: Final = json.JSONEncoder(ensure_ascii=True).encode


class Made(NamedTuple):
    """A record: its value, its headers, and the time of its last event."""

    value: bytes
    headers: list[tuple[str, bytes]]
    at_ms: int


def envelopes_of(parameters: Parameters) -> Mix:
    """The mix of envelopes, of those that Responses travel in."""
    mix = Mix(ENVELOPES, parameters.envelopes)
    return mix or Mix(ENVELOPES, {"bare": 1.0})


class ResponseRecords:
    """The records of one response, in order; the expected result is added to `expected`."""

    def __init__(
        self, run: ResponseRun, parameters: Parameters, envelopes: Mix, expected: Expected, partition: int
    ) -> None:
        self._run, self._parameters, self._envelopes = run, parameters, envelopes
        self._expected, self._partition = expected, partition
        self._rng: Random = run.rng
        self._place = 0
        self._numbers: set[int] = set()

    def records(self) -> Iterator[tuple[int, list[Made]]]:
        """Yield records at the time of their last events, with the faults generated after each."""
        rng, d = self._rng, self._parameters
        events = self._run.events()
        held = next(events, None)
        told: list[ResponseEvent] = []
        while held is not None:
            envelope = "bare" if held.retrieved else self._envelopes.pick(rng)
            bundle = [held]
            held = next(events, None)
            if envelope == "sse_many" and not bundle[0].alone:
                for _ in range(rng.randint(1, 5)):
                    if held is None or held.alone:
                        break
                    bundle.append(held)
                    held = next(events, None)
            made = self._made(bundle, envelope)
            self._expect(bundle, made.at_ms // 1000)
            told += [event for event in bundle if not event.retrieved]
            batch = [made]
            if self._knows_repeats() and rng.random() < d.duplicates:
                batch.append(made)
                self._expected.counts["duplicate"] += len(bundle)
            if self._has_numbers() and rng.random() < d.resumed / 20:
                batch += self._read_again(told, made.at_ms)
            yield made.at_ms, batch

    def forgotten_s(self) -> int:
        """The second at which the worker forgets the response; 0 where the response has an end."""
        return 0 if self._run.has_end else int(self._run.now) // 1000 + self._parameters.max_age_s

    def left_open(self) -> list[tuple[str, dict[str, Any], set[str], int]]:
        """Steps that end by their deadline: id, snapshot, anomalies, and the deadline in seconds."""
        found = []
        for outcome in self._run.left_open:
            due_s = outcome.step.began_s + self._parameters.max_age_s
            snapshot = outcome.step.snapshot(outcome.item, "expired", due_s)
            found.append((outcome.step.id, snapshot, outcome.step.anomalies, due_s))
        return found

    def _knows_repeats(self) -> bool:
        return self._has_numbers() or self._parameters.with_ids == 1

    def _has_numbers(self) -> bool:
        return self._run.first_number is not None and not self._run.gateway.is_misnumbering

    def _expect(self, bundle: list[ResponseEvent], at_s: int) -> None:
        for event in bundle:
            if event.opens is not None:
                event.opens.began_s = at_s
            for end in event.ends:
                self._expected.publish(
                    end.step.id,
                    end.revision,
                    end.step.snapshot(end.item, end.status, at_s, end.error),
                    partition=self._partition,
                    inferred=end.inferred,
                    anomalies=end.step.anomalies,
                )

    def _read_again(self, told: list[ResponseEvent], at_ms: int) -> list[Made]:
        """Resume the stream: the last events once more, with another order of keys."""
        again = told[-self._rng.randint(1, 12) :]
        self._expected.counts["duplicate"] += len(again)
        return [self._record([event], "bare", at_ms, shuffled=True) for event in again]

    def _made(self, bundle: list[ResponseEvent], envelope: str) -> Made:
        made = self._record(bundle, envelope, bundle[-1].at_ms, shuffled=False)
        self._place += len(bundle)
        return made

    def _record(self, bundle: list[ResponseEvent], envelope: str, at_ms: int, *, shuffled: bool) -> Made:
        first = bundle[0]
        texts = [self._text(event.data, shuffled) for event in bundle]
        if envelope == "event":
            value = f'{{"event":"{first.data["type"]}","data":{texts[0]}}}'
        elif envelope == "bare":
            value = texts[0]
        else:
            named = self._rng.random() < 0.8
            value = "".join(
                (f"event: {event.data['type']}\n" if named else "") + f"data: {text}\n\n"
                for event, text in zip(bundle, texts, strict=True)
            )
        return Made(value.encode(), self._headers(bundle), at_ms)

    def _text(self, data: dict[str, Any], shuffled: bool) -> str:
        if shuffled:
            keys = list(data)
            self._rng.shuffle(keys)
            data = {key: data[key] for key in keys}
        return _compact(data) if self._rng.random() < 0.7 else _spaced(data)

    def _headers(self, bundle: list[ResponseEvent]) -> list[tuple[str, bytes]]:
        """As `publish` writes them; other producers write none."""
        key = self._run.key
        if bundle[0].retrieved:
            return [
                ("runstep-event-id", key + b":retrieved"),
                ("runstep-run-id", key),
                ("runstep-origin", b"retrieved"),
            ]
        said = [event.data.get("sequence_number") for event in bundle]
        numbers = [int(number) for number in said if number is not None]
        number = numbers[0] if said[0] is not None else None
        place = b"%d" % (self._place if number is None else number)
        if number is not None and self._run.gateway.is_misnumbering and self._is_no_id(number):
            number = None
        self._numbers.update(numbers)
        if self._rng.random() >= self._parameters.with_ids:
            return []
        identity = key + b":%d" % number if number is not None else b"%032x" % (self._place + 1)
        return [("runstep-event-id", identity), ("runstep-run-id", key), ("runstep-sequence", place)]

    def _is_no_id(self, number: int) -> bool:
        """Whether another event had this number, or may have: it is below that of the first one."""
        return number in self._numbers or number < min(self._numbers, default=0)
