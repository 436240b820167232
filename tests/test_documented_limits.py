"""Limits, versions and examples in the documentation: numbers that a reader plans with, compared with the program."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from deploy.site.stage import ROOT, pages
from processor.archives.label import LAYOUT_VERSION
from processor.archives.reading import MAX_PARTITIONS
from processor.archives.records import LIMITS
from processor.audit.judge.block_digests import BLOCK_OFFSETS
from processor.audit.report.manifest import FORMAT as REPORT_VERSION
from processor.audit.step_timeline import _ENOUGH, _ENOUGH_OBJECTS
from processor.cli.dead_letters import _MAX_REDRIVES
from processor.config.settings import Settings, default_of, keys
from processor.core.checkpoints import CHECKPOINT_VERSION, IDS_VERSION, RESPONSE_VERSION
from processor.core.effects import FOLD_VERSION
from processor.core.json_bytes import MAX_NESTING
from processor.core.merge import MAX_INDEX
from processor.core.named_events import MAX_DEPTH, MAX_ID
from processor.core.offset_metadata import METADATA_VERSION
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.responses.numbers import MAX_RANGES
from processor.core.rules import MAX_DIGITS
from processor.doctor.samples import SAMPLE_RECORDS
from processor.kafka.admin import _USUAL_REPLICAS
from processor.otlp.unit_tracer import _MAX_LINKS, _MAX_TURNS, _SEARCHED
from processor.publish.outgoing import MAX_HELD_EVENTS
from processor.serve.descriptors import ENOUGH, NEEDED
from processor.serve.http_connections import CONNECTIONS, RESERVED
from processor.serve.restore import _WHOLE_LOG_RECORDS
from processor.serve.supervisor import _PROBE_EVERY_S
from processor.serve.topics import _SOURCE_PARTITIONS, _size, checkpoint_record_bytes

_TOML: Final = re.compile(r"(?ms)^```toml\n(.*?)^```")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_the_limits_of_archives_are_those_of_the_reader() -> None:
    rows = dict(re.findall(r"(?m)^\| ([^|]+) \| ([^|]+) \|$", page("archive-format.md").partition("## Limits\n")[2]))
    assert rows == {
        "a JSON line; a record that is written": f"{LIMITS.line_bytes >> 20} MiB",
        "an Avro block or a Parquet page, packed or unpacked": f"{LIMITS.block_bytes >> 20} MiB",
        "a Parquet row group, unpacked (from the page headers, before anything is unpacked)": (
            f"{LIMITS.group_bytes >> 30} GiB"
        ),
        f"unpacked to packed size, looked at from {LIMITS.ratio_from_bytes >> 20} MiB unpacked on": f"{LIMITS.ratio}",
        "headers of a record": f"{LIMITS.headers:,}",
        "values of a Parquet page, events of an Avro block": f"{LIMITS.rows:,}",
        "a Parquet footer": f"{LIMITS.footer_bytes >> 20} MiB",
        "partitions in an archive": f"{MAX_PARTITIONS:,}",
    }


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("semantics.md", f"Nested more than {MAX_NESTING} levels (a step event: more\n  than {MAX_DEPTH}): `too_deep`"),
        ("semantics.md", f"JSON of at most {MAX_NESTING} levels"),
        ("semantics.md", f"`id` not a string of 1 to {MAX_ID}"),
        ("semantics.md", f"0 <= index < {MAX_INDEX}"),
        ("semantics.md", f"up to {MAX_DIGITS:,} digits"),
        ("responses.md", f"its id has more than {MAX_RESPONSE_ID:,} characters: `malformed`"),
        ("responses.md", f"integers from 0 to {MAX_INDEX - 1}"),
        ("responses.md", f"kept as ranges ({MAX_RANGES} at most"),
        ("operations.md", f"the source with {_SOURCE_PARTITIONS} partitions"),
        ("operations.md", f"with {_USUAL_REPLICAS} replicas"),
        (
            "operations.md",
            f"of {int(_size(checkpoint_record_bytes(Settings()))['max.message.bytes']):,} for the checkp",
        ),
        (
            "operations.md",
            f"of {int(_size(Settings().output.max_record_bytes)['max.message.bytes']):,} for the outcomes",
        ),
        ("operations.md", f"of {int(_size(0)['max.message.bytes']) >> 10} KiB more than\nthe source's"),
        ("operations.md", f"Every {_PROBE_EVERY_S:g} seconds a worker describes its topics"),
        ("operations.md", f"HTTP has at most {CONNECTIONS} connections"),
        ("operations.md", f"and {RESERVED} descriptors are held back"),
        ("operations.md", f"with less than {NEEDED} descriptors does not start (78); below {ENOUGH} `descriptors_few`"),
        ("operations.md", f"logs of more than {_WHOLE_LOG_RECORDS:,} records per partition"),
        ("operations.md", f"the newest {SAMPLE_RECORDS:,} records of each partition"),
        ("operations.md", f"`--max-redrives` times ({_MAX_REDRIVES})"),
        ("responses.md", f"({MAX_HELD_EVENTS:,} of them at most)"),
        ("auditors-guide.md", f"the first {_ENOUGH:,} events"),
        ("auditors-guide.md", f"up to {_ENOUGH_OBJECTS:,} that are no deltas"),
        ("auditors-guide.md", f"A block is {BLOCK_OFFSETS} offsets from a multiple of {BLOCK_OFFSETS} on"),
        ("opentelemetry.md", f"at most {_MAX_LINKS}, of the first {_SEARCHED} records"),
        ("opentelemetry.md", f"the first {_MAX_TURNS} polls of a unit"),
        ("upgrading.md", f"| fold version ({FOLD_VERSION}) |"),
        ("upgrading.md", f"version 1) and this one ({FOLD_VERSION})"),
        ("upgrading.md", f"\n| {FOLD_VERSION} | "),
        ("upgrading.md", f"| checkpoint of a step ({CHECKPOINT_VERSION}) |"),
        ("upgrading.md", f"| checkpoint of a response ({RESPONSE_VERSION}) |"),
        ("upgrading.md", f"| checkpoint of a step whose events have ids ({IDS_VERSION}) |"),
        ("upgrading.md", f"| metadata of a committed offset ({METADATA_VERSION}) |"),
        ("upgrading.md", f"| archive ({LAYOUT_VERSION}), report ({REPORT_VERSION}) |"),
    ],
)
def test_numbers_that_outcomes_depend_on_are_those_of_the_program(name: str, sentence: str) -> None:
    assert sentence in page(name)


@pytest.mark.parametrize("name", [name for name in pages() if _TOML.search((ROOT / name).read_text("utf-8"))], ids=str)
def test_examples_of_settings_name_settings(name: Path) -> None:
    settings = {(section, key) for section, key, _ in keys()}
    for text in _TOML.findall((ROOT / name).read_text("utf-8")):
        for section, values in tomllib.loads(text).items():
            assert {(section, key) for key in values} <= settings, text


def _another(default: Any, choices: tuple[Any, ...]) -> Any:
    """Another value of a setting than its default."""
    if choices:
        return next(choice for choice in choices if choice != default)
    return not default if isinstance(default, bool) else f"{default}x" if isinstance(default, str) else default + 1


def test_the_settings_that_are_rules_are_listed() -> None:
    """A setting that changes the digest of the rules changes what an audit can prove: its reader must know which."""
    settings, rules = Settings(), set()
    for section, key, field in keys():
        default, choices = default_of(field), get_args(field.annotation)
        another = None if default is None else _another(default, choices if isinstance(default, str) else ())
        changed = getattr(settings, section).model_copy(update={key: another})
        if settings.model_copy(update={section: changed}).rules() != settings.rules():
            rules.add(f"{section}.{key}")
    listed = page("semantics.md").partition("The rules are these settings")[2].partition(".\n")[0]
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", listed)) == rules


def test_the_faults_of_the_reliability_table_are_added_up() -> None:
    """A row that is added changes the sum above the table."""
    text = page("reliability.md").partition("## Results\n")[2].partition("\n\nBefore the worker had")[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    counted = [row for row in rows if row[1][:1].isdigit()]
    faults, late = (sum(int(row[n].replace(",", "") or 0) for row in counted) for n in (1, 2))
    assert f"Together {faults:,} faults, {late:,} of them late deliveries" in text
    for n, (_, what) in enumerate((("lost", 0), ("doubled", 9), ("wrong", 0)), 4):
        assert sum(int(row[n]) for row in counted) == what, "the text says so: nothing from Kafka 4.0 on, 9 on 3.9"
