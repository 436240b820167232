"""Generator of unusable records, each with the reason of its dead letter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final, NamedTuple

_DELTA: Final = '{{"event":"thread.run.step.delta","data":{{"id":"{}","object":"thread.run.step.delta",{}}}}}'
_GOOD: Final = '"delta":{"step_details":{"type":"tool_calls","tool_calls":[{"index":0,"type":"function"}]}}'
_BATCH: Final = (("content-type", b"application/cloudevents-batch+json"),)
_DEPTH: Final = 100_000


class Garbage(NamedTuple):
    """A value, its reason, and the headers that go with it."""

    reason: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def garbage(rng: Random, step_id: str) -> Garbage:
    """Draw an unusable record; if it names a step, it names `step_id`."""
    if rng.random() < 0.005:
        return Garbage("too_deep", _deep())
    reason, makers = ("not_json", _NOT_JSON) if rng.random() < 0.5 else ("malformed", _MALFORMED)
    made = rng.choice(makers)(step_id)
    return made if isinstance(made, Garbage) else Garbage(reason, made)


@cache
def _deep() -> bytes:
    """JSON nested deeper than any decoder accepts; small enough for a topic."""
    return _DELTA.format("step_deep", f'"delta":{{"step_details":{"[" * _DEPTH}{"]" * _DEPTH}}}').encode()


def _with(text: str) -> Callable[[str], bytes]:
    return lambda step_id: _DELTA.format(step_id, f"{text},{_GOOD}").encode()


def _plain(value: bytes) -> Callable[[str], bytes]:
    return lambda step_id: value


def _details(text: str) -> Callable[[str], bytes]:
    return lambda step_id: _DELTA.format(step_id, f'"delta":{{"step_details":{text}}}').encode()


def _id(text: str) -> Callable[[str], bytes]:
    return lambda step_id: f'{{"event":"thread.run.step.delta","data":{{"id":{text},{_GOOD}}}}}'.encode()


def _half_a_stream(step_id: str) -> bytes:
    """Two torn frames: nothing of the record can be read, so it is refused once."""
    return f'data: {{\n\nevent: thread.run.step.delta\ndata: {{"id":"{step_id}'.encode()


def _half_a_batch(step_id: str) -> Garbage:
    """Two malformed events: nothing of the record can be read, so it is refused once."""
    head = '"specversion":"1.0","source":"/torn","type":"thread.run.step.delta"'
    first = f'{{{head},"id":"1","data":{{"id":[],"object":"thread.run.step.delta",{_GOOD}}}}}'
    second = f'{{{head},"id":"2","data":{{"id":7,"object":"thread.run.step.delta",{_GOOD}}}}}'
    return Garbage("malformed", f"[{first},{second}]".encode(), _BATCH)


_NOT_JSON: Final[tuple[Callable[[str], bytes | Garbage], ...]] = (
    _plain(b"hello"),
    _plain(b"\xff\xfe\x00\x01"),
    _plain(b"\x00"),
    _plain(b"{'event':'thread.run.step.delta'}"),
    _plain(b"[1,2"),
    _with('"torn'),
    _with('"note":NaN'),
    _with('"note":Infinity'),
    _with('"note":-Infinity'),
    _with('"note":1e999'),
    _with('"note":01'),
    _with('"note":"\\uD8"'),
    _with('"note":"\\udc0"'),
    _with('"\\udff":1'),
    lambda step_id: _with('"note":"?"')(step_id).replace(b"?", b"\xc3\x28"),
    lambda step_id: _with('"note":"?"')(step_id).replace(b"?", b"\xed\xa0\x80"),
    lambda step_id: _with('"note":1')(step_id)[:-3],
    lambda step_id: _with('"note":1')(step_id) + b"}",
    _half_a_stream,
)
_MALFORMED: Final[tuple[Callable[[str], bytes | Garbage], ...]] = (
    _plain(b"42"),
    _plain(b'"text"'),
    _plain(b"[]"),
    _plain(b"{}"),
    _plain(b'{"object":"list","data":[]}'),
    _plain(b'{"event":"thread.run.step.delta"}'),
    _plain(b'{"event":"thread.run.step.delta","data":"text"}'),
    _plain(b'{"event":"thread.run.step.delta","data":[]}'),
    _plain(b'{"event":7,"data":{}}'),
    _id("7"),
    _id("null"),
    _id('""'),
    _id(f'"{"x" * 257}"'),
    _details('"text"'),
    _details("[]"),
    _details('{"type":"tool_calls","tool_calls":{}}'),
    _details('{"type":"tool_calls","tool_calls":[1]}'),
    _details('{"type":"tool_calls","tool_calls":"text"}'),
    lambda step_id: (
        f'{{"event":"thread.run.step.completed","data":{{"id":"{step_id}","status":"completed",'
        '"step_details":[]}}'.encode()
    ),
    _half_a_batch,
)
