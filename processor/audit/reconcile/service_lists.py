"""Read the service's lists of run steps: pages, plain arrays, single steps, one JSON value or one a line.

A page is what `GET .../threads/{id}/runs/{id}/steps` answers: `{"object": "list", "data": [...], "has_more": ...}`.
A response object is the list of its output items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from processor.audit.reconcile import response_objects
from processor.audit.reconcile.comparison import ENDS, PublishedStep, latest_s
from processor.core.surrogates import may_hold_halves, without_halves
from processor.errors import RunStepsError

STEP_OBJECTS: Final = frozenset({"thread.run.step", "assistant.run.step"})
_MAX_BYTES: Final = 1 << 30
_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_HINT: Final = "give pages of run steps, arrays of them, one step a line, or response objects"


class ListError(RunStepsError):
    """A list cannot be read, or is not one."""

    exit_code = 65


class ServiceLists:
    """The steps that lists hold.

    Attributes:
        steps: by id, as the service has them; of an id that is listed twice, the one that has ended.
        conflicting: ids that are listed twice as ended, with different contents.
        runs: run id -> whether its list is whole: a page said that there are no more, or it was no page; of a response,
            whether it has completed.
        pages: how many pages were read.
        responses: response objects, by id; of one that is listed twice, the one that has ended.
    """

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, Any]] = {}
        self.conflicting: set[str] = set()
        self.runs: dict[str, bool] = {}
        self.pages = 0
        self.responses: dict[str, dict[str, Any]] = {}
        self._conflicting_responses: set[str] = set()

    def add(self, value: Any, where: str) -> None:
        """Take a page, an array or a step.

        Raises:
            ListError: it is none of them.
        """
        if isinstance(value, list):
            for item in value:
                self.add(item, where)
        elif isinstance(value, dict) and isinstance(value.get("data"), list):
            self.pages += 1
            more = value.get("has_more") not in (None, False)  # gateways write "true", too
            for item in value["data"]:
                self._add_step(item, where, whole=not more)
        elif isinstance(value, dict) and value.get("object") == response_objects.OBJECT:
            self._add_response(value, where)
        else:
            self._add_step(value, where, whole=True)

    def _add_response(self, response: dict[str, Any], where: str) -> None:
        try:
            steps = response_objects.steps_of(response)
        except ValueError as error:
            raise ListError(f"reconcile: {where}: {error}", hint=_HINT) from None
        before = self.responses.get(response["id"])
        if before is not None and response_objects.is_ended(before):
            if response_objects.is_ended(response) and before != response:
                self._conflicting_responses.add(response["id"])
                self.runs[response["id"]] = False
            return
        self.responses[response["id"]] = response
        self.runs[response["id"]] = response_objects.is_whole(response)
        self.steps.update({step["id"]: step for step in steps})

    def place_responses(self, published: Mapping[str, Mapping[int, PublishedStep]]) -> None:
        """Give the steps of response objects the ids under which their items were published."""
        of_response: dict[str, dict[str, Mapping[int, PublishedStep]]] = {}
        for step_id, found in published.items():
            of_response.setdefault(step_id.rpartition(":")[0], {})[step_id] = found
        for response_id, response in self.responses.items():
            listed = response_objects.steps_of(response)
            for step in listed:
                self.steps.pop(step["id"], None)
            for step in response_objects.placed(response, listed, of_response.get(response_id, {})):
                self.steps[step["id"]] = step
                if response_id in self._conflicting_responses:
                    self.conflicting.add(step["id"])

    def latest(self) -> dict[str, int]:
        """Run id -> the latest time, in seconds, that its list says. No response: it says itself that it has ended."""
        found: dict[str, int] = {}
        for step in self.steps.values():
            run_id = step.get("run_id")
            if isinstance(run_id, str) and run_id not in self.responses:
                found[run_id] = max(found.get(run_id, -1), latest_s(step))
        return found

    def _add_step(self, value: Any, where: str, *, whole: bool) -> None:
        if not isinstance(value, dict) or value.get("object") not in STEP_OBJECTS:
            kind = value.get("object") if isinstance(value, dict) else type(value).__name__
            raise ListError(
                f"reconcile: {where}: neither a run step nor a list of them (got {str(kind)[:80]!r})", hint=_HINT
            )
        step_id, run_id = value.get("id"), value.get("run_id")
        if not isinstance(step_id, str) or not step_id:
            raise ListError(f"reconcile: {where}: a run step without an id", hint=_HINT)
        if isinstance(run_id, str):
            self.runs[run_id] = self.runs.get(run_id, False) or whole
        before = self.steps.setdefault(step_id, value)
        if before == value:
            return
        if before.get("status") not in ENDS:
            self.steps[step_id] = value
        elif value.get("status") in ENDS:
            self.conflicting.add(step_id)


def read_lists(paths: Iterable[Path]) -> ServiceLists:
    """Read files, and the `.json`, `.jsonl` and `.ndjson` files of folders.

    Raises:
        ListError: a file cannot be read, or holds something else.
    """
    lists = ServiceLists()
    for path in paths:
        for file in _files(path):
            for number, value in _values(file):
                lists.add(value, f"{file}:{number}" if number else str(file))
    return lists


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    if not found:
        raise ListError(f"reconcile: {path}: no .json, .jsonl or .ndjson file in it", hint=_HINT)
    return found


def _values(file: Path) -> Iterator[tuple[int, Any]]:
    """(line or 0, value): the whole file is one value, else each line is."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ListError(f"reconcile: {file}: {error.strerror}", hint=_HINT) from None
    if len(content) > _MAX_BYTES:
        raise ListError(f"reconcile: {file}: larger than {_MAX_BYTES} bytes", hint="split it at its lines")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        yield 0, _decoded(content)
        return
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        whole = error
    lines = content.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = _decoded(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            why = (
                whole if number == 1 else error
            )  # of a file that is no JSON lines at all, what is wrong with the whole
            raise ListError(f"reconcile: {file}:{number}: not JSON ({why})", hint=_HINT) from None
        yield number, value


def _decoded(text: bytes) -> Any:
    """A JSON value; half a surrogate pair is U+FFFD, as in what was published."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if not may_hold_halves(text):
            raise
        return msgspec.json.decode(without_halves(text))
