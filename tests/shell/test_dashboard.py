"""The Grafana dashboard is what its program writes, and asks only for series that a worker exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.make_dashboard import OUTPUT, board
from processor.telemetry.metrics import METRICS, Type
from processor.telemetry.telemetry import Telemetry

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
LABELS: Final = {metric.name: {label.name: label.values for label in metric.labels} for metric in METRICS}
# Put on by Prometheus, or by a histogram.
_ADDED: Final = {"job", "instance", "le"}


def queries() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in json.loads(OUTPUT.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target


def test_the_file_is_what_the_program_writes() -> None:
    """`make dashboard` writes it; whoever changes the program or a metric's advice runs it."""
    assert OUTPUT.read_text() == board()


def test_every_metric_is_on_the_board_and_no_other() -> None:
    """Of ours all but bytes for capacity, a heartbeat and two offsets, which say nothing as a curve."""
    asked = {name for _, target in queries() for name in re.findall(r"runstep_\w+", target["expr"])}
    shown = {name if name in LABELS else name.removesuffix("_bucket") for name in asked}
    left_out = {
        "runstep_applied_bytes_total", "runstep_audit_verified_offset", "runstep_committed_offset",
        "runstep_ended_steps_remembered", "runstep_unit_bound_lowered_total", "runstep_worker_up",
    }  # fmt: skip
    assert shown == LABELS.keys() - left_out


def test_a_worker_exposes_what_the_board_asks_for() -> None:
    families = {
        family.name: family.type for family in text_string_to_metric_families(Telemetry().exposition().decode())
    }
    for title, target in queries():
        for name in re.findall(r"\b(?:runstep|process)_\w+", target["expr"]):
            base = name.removesuffix("_total").removesuffix("_bucket")
            assert base in families or name in families, f"{title}: {name}"
            assert name.endswith("_bucket") is (families.get(base) == Type.HISTOGRAM), f"{title}: {name}"


def test_labels_of_queries_and_legends_exist() -> None:
    """A legend of a label that a query drops is empty."""
    for title, target in queries():
        (metric, *_) = re.findall(r"(?:runstep|process)_\w+", target["expr"])
        known = LABELS.get(metric, LABELS.get(metric.removesuffix("_bucket"), {}))
        grouped = set(re.findall(r"\w+", ",".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
        assert grouped <= known.keys() | _ADDED, title
        assert set(re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))) <= grouped, title
        for label, value in re.findall(r'(\w+)="([^"$]*)"', target["expr"]):
            assert value in known[label], f"{title}: {label}={value}"


def test_grafana_of_compose_finds_the_board_and_prometheus() -> None:
    """The mounts are where the provisioning files look."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "run-steps.yml").read_text())["providers"]
    assert mounts["./grafana/run-steps.json"] == f"{provider['options']['path']}/{OUTPUT.name}"
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
