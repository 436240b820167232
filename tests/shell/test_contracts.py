"""Names that outsiders rely on. A change here breaks someone's dashboard, script or reader: it needs a release note.

The contract files are edited by hand; the tests only compare, so that no change passes unseen.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from processor import errors
from processor.core import headers
from processor.core.effects import LogRecord, Reason
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE
from processor.kafka.output_records import OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS, OMITTED_KEY
from processor.publish.outgoing import HEADER_ORIGIN
from processor.telemetry.metrics import METRICS
from processor.telemetry.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "tests" / "contracts"


def contract(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CONTRACTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def test_the_catalogue_holds_the_metrics_of_the_contract_and_no_others() -> None:
    catalogue = {
        metric.name: {
            "type": metric.type.value,
            "unit": metric.unit,
            "labels": {label.name: sorted(label.values) or "bounded by the deployment" for label in metric.labels},
        }
        for metric in METRICS
    }
    assert catalogue == contract("metrics")


def test_the_registry_exposes_exactly_the_metrics_of_the_contract() -> None:
    exposition = Telemetry().exposition().decode()
    exposed = {}
    for family in text_string_to_metric_families(exposition):
        if not family.name.startswith("process_"):
            exposed[family.name + ("_total" if family.type == "counter" else "")] = family.type
    assert exposed == {name: metric["type"] for name, metric in contract("metrics").items()}


def test_no_label_is_an_id() -> None:
    labels = {label for metric in contract("metrics").values() for label in metric["labels"]}
    assert not {label for label in labels if label.endswith("id") or "step" in label or "thread" in label}


def test_every_metric_says_what_it_means_and_what_to_do() -> None:
    for metric in METRICS:
        assert metric.help.endswith("."), metric.name
        assert metric.advice.endswith("."), metric.name
        assert len(metric.help) > 20, metric.name


def test_exit_codes_are_those_of_the_contract() -> None:
    codes = {
        error.__name__: error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.RunStepsError)
    }
    assert codes == contract("exit_codes")


def test_the_drawn_error_tree_agrees_with_the_contract() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith(("├── ", "└── ")):
            drawn[line[4:].split()[0]] = int(line.rstrip(")").split()[-1])
    assert drawn == {name: code for name, code in contract("exit_codes").items() if name != "RunStepsError"}


def test_header_names_are_those_of_the_contract() -> None:
    names = {EVENT_ID, RUN_ID, SEQUENCE, HEADER_ORIGIN, OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS, OMITTED_KEY}
    for constant, value in vars(headers).items():
        if constant.isupper() and isinstance(value, str):
            names.add(value)
        elif constant.isupper() and isinstance(value, tuple):
            names.update(value)
    assert names == set(contract("headers"))


def test_every_header_name_in_the_program_is_of_the_contract() -> None:
    """A new one is found here whatever module it is in."""
    literal = re.compile(r'b?"(runstep-[a-z-]+[a-z])"')
    named = {name for path in (ROOT / "processor").rglob("*.py") for name in literal.findall(path.read_text("utf-8"))}
    assert len(named) > 20
    assert named <= set(contract("headers"))


def test_a_dead_letter_carries_the_headers_of_the_contract_behind_its_own() -> None:
    own = (("tenant", b"a"), ("tenant", b"b"), ("empty", None))
    record = LogRecord(offset=7, timestamp=1, key=None, value=b"[", headers=own)
    written = headers.dead_letter_headers(b"events", b"0", record, Reason.NOT_JSON, "detail")
    assert written[:3] == own
    promised = {name for name, carried_by in contract("headers").items() if "dead_letter" in carried_by}
    only_references = {"runstep-clock-mark"}  # X3: a snapshot that a clock mark ended (tests/core/test_limits.py)
    too_large = {name for name in promised if name.startswith("runstep-omitted-")}  # test_output_records.py
    of_several = {"runstep-event-number"}
    always = promised - only_references - too_large - of_several
    assert {name for name, _ in written[3:]} == always
    written = headers.dead_letter_headers(b"events", b"0", record, Reason.NOT_JSON, "detail", "2/3")
    assert {name for name, _ in written[3:]} == always | of_several
