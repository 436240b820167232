"""What an open step costs to remember, beyond its text. Each time in a fresh process: memory is not given back."""

from __future__ import annotations

import gc
import subprocess
import sys

from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.bench.load import BEGIN_S, as_fetched, delta, event
from tests.bench.measure import Book
from tests.bench.measured_process import rss_bytes

TEXT = "x" * 200
_AT_A_TIME = 1_000


def per_open_step(book: Book, rounds: int, numbers: tuple[int, ...]) -> None:
    for number in numbers:
        for how in ("at work", "checkpointed"):
            command = [sys.executable, "-m", __name__, str(number), how]
            spent = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(rounds)]
            book.add(f"memory: per open step beyond its text, {number // 1000} k open, {how}", spent, "bytes")


def _measured(number: int, how: str) -> float:
    """Bytes of real memory per open step with one tool call, its text taken off."""
    state = PartitionState("bench", 0, Rules(max_open_steps=number + 1))

    def opened(first: int) -> None:
        _open(state, first, _AT_A_TIME)
        if how == "checkpointed":
            state.checkpoint(state.next_offset)

    opened(0)  # what the first steps bring about stays out of it
    gc.collect()
    before = rss_bytes()
    for first in range(_AT_A_TIME, number, _AT_A_TIME):
        opened(first)
    gc.collect()
    held = rss_bytes() - before
    assert state.open_steps == number
    return held / (number - _AT_A_TIME) - len(TEXT)


def _open(state: PartitionState, first: int, number: int) -> None:
    values: list[bytes] = []
    for n in range(first, first + number):
        step_id = f"step_{n:024x}"
        stated = {
            "id": step_id, "object": "thread.run.step", "created_at": BEGIN_S, "assistant_id": "asst_7c1f0a5be2d84f6f",
            "thread_id": f"thread_{n:024x}", "run_id": f"run_{n:024x}", "type": "tool_calls", "status": "in_progress",
            "step_details": {"type": "tool_calls", "tool_calls": []}, "last_error": None, "expires_at": BEGIN_S + 600,
            "cancelled_at": None, "failed_at": None, "completed_at": None, "usage": None,
        }  # fmt: skip
        values.append(event("created", stated))
        half = len(TEXT) // 2
        values.append(delta(step_id, 0, TEXT[:half], f"call_{n:024x}"))
        values.append(delta(step_id, 0, TEXT[half:], None))
    fetched = as_fetched((BEGIN_S * 1000, b"", value) for value in values)
    state.apply([_Shifted(record, state.next_offset) for record in fetched])


class _Shifted:
    """A fetched record further on in the log."""

    __slots__ = ("headers", "key", "offset", "timestamp", "value")

    def __init__(self, record, by: int) -> None:  # type: ignore[no-untyped-def]
        self.offset = record.offset + by
        self.timestamp, self.key, self.value, self.headers = record.timestamp, record.key, record.value, record.headers


if __name__ == "__main__":
    print(_measured(int(sys.argv[1]), sys.argv[2]))  # noqa: T201
