"""The contracts for readers (docs/contracts): what the program writes, valid, and true of what the fold publishes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.contracts.__main__ import FILES, text
from processor.contracts.asyncapi import DEAD_LETTER, PUBLISHED, SOURCE, asyncapi
from processor.contracts.snapshot import snapshot_schema
from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.merge import MAX_INDEX
from processor.core.partition import PartitionState
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.step_state import SCHEMA_KEYS
from tests.core.responses_log import log_of, play, published, snapshot
from tests.core.responses_strategies import response_logs
from tests.core.strategies import RULES, lives, logs

ROOT: Final = Path(__file__).parents[2]
SPECIFICATION: Final = "@asyncapi/specs@6.11.1"
VALID_STEP: Final = jsonschema.Draft202012Validator(snapshot_schema())


def of_asyncapi(message: str) -> dict[str, Any]:
    loaded: dict[str, Any] = asyncapi()["components"]["messages"][message]
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_the_committed_contract_is_what_the_program_writes(name: str) -> None:
    """`make contracts` writes it. A change is a change of the API: it needs a line in the changelog."""
    assert (ROOT / "docs" / "contracts" / name).read_text(encoding="utf-8") == text(FILES[name]())


def test_asyncapi_accepts_the_document(tmp_path: Path) -> None:
    """By the JSON Schema of the specification itself."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    subprocess.run([npm, "pack", "--silent", SPECIFICATION], cwd=tmp_path, check=True, timeout=300)
    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as archive:
        member = archive.extractfile("package/schemas/3.0.0.json")
        assert member is not None
        schema = json.load(member)
    jsonschema.Draft7Validator(schema).validate(asyncapi())


def test_what_the_document_refers_to_is_in_it() -> None:
    """The schema above does not follow references."""
    document = asyncapi()

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key == "$ref")
            for value in node.values():
                yield from references(value)

    found = list(references(document))
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_schema_is_a_schema_and_requires_the_keys_of_the_api() -> None:
    jsonschema.Draft202012Validator.check_schema(snapshot_schema())
    assert set(snapshot_schema()["required"]) == set(SCHEMA_KEYS)


def test_the_documented_headers_are_those_of_the_header_contract() -> None:
    contract = json.loads((ROOT / "tests" / "contracts" / "headers.json").read_text())
    assert set(PUBLISHED) == {name for name, where in contract.items() if "published" in where}
    assert set(DEAD_LETTER) == {name for name, where in contract.items() if "dead_letter" in where}
    read_only = {"traceparent", "tracestate"}  # of the producer\'s tracer; ours writes them on what is published
    assert set(SOURCE) - read_only == {name for name, where in contract.items() if "source" in where}


@given(st.one_of(logs(), lives(), response_logs()))
def test_what_the_fold_publishes_fits_the_contract(log: list[LogRecord]) -> None:
    state = PartitionState("source", 3, RULES)
    for effect in state.apply(log):
        if isinstance(effect, Publish):
            VALID_STEP.validate(json.loads(effect.value))
            check_headers(of_asyncapi("step"), dict(effect.headers))
        elif isinstance(effect, DeadLetter):
            own = {name: content for name, content in effect.headers if name in DEAD_LETTER}
            check_headers(of_asyncapi("deadLetter"), own)


def test_the_longest_id_of_a_response_fits_the_contract() -> None:
    """And it is the longest that the schema takes."""
    stream: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r" * MAX_RESPONSE_ID}},
        {"type": "response.output_item.added", "output_index": MAX_INDEX - 1, "item": {"type": "message"}},
        {"type": "response.output_item.done", "output_index": MAX_INDEX - 1, "item": {"type": "message"}},
    ]
    effects, _ = play(log_of([{"sequence_number": number} | event for number, event in enumerate(stream)]))
    (step,) = (snapshot(effect) for effect in published(effects).values())
    VALID_STEP.validate(step)
    assert not VALID_STEP.is_valid(step | {"id": step["id"] + "0"})


def check_headers(message: dict[str, Any], headers: dict[str, Any]) -> None:
    stated = message["headers"]
    assert set(stated["required"]) <= headers.keys() <= stated["properties"].keys()
    for name, content in headers.items():
        schema, said = stated["properties"][name], content.decode()
        assert re.search(schema.get("pattern", ""), said), name
        assert said in schema.get("enum", [said]), name


@pytest.mark.parametrize(
    "change",
    [{"status": "in_progress"}, {"status": None}, {"id": ""}, {"id": 5}, {"metadata": ...}],
    ids=str,
)
def test_a_step_that_is_not_one_is_refused(change: dict[str, Any]) -> None:
    step: dict[str, Any] = dict.fromkeys(SCHEMA_KEYS) | {"id": "s1", "status": "completed"} | change
    step = {key: value for key, value in step.items() if value is not ...}
    assert not VALID_STEP.is_valid(step)
