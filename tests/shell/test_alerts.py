"""The alert rules name metrics that exist, fire when they should, and have a runbook page each."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from processor.config.settings import Settings
from processor.telemetry.metrics import METRICS, Type

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
RULE_TESTS: Final = ROOT / "deploy" / "prometheus" / "alerts_test.yml"
RUNBOOK: Final = ROOT / "docs" / "runbook"
PROMTOOL: Final = shutil.which("promtool")

# Of Prometheus itself, and of prometheus_client's process collector.
_NOT_OURS: Final = {"up", "process_open_fds", "process_max_fds", "process_start_time_seconds"}
_SECTIONS: Final = ["What it means", "What to look at", "What to do", "What not to do"]


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule for rule in group["rules"]}
    assert len(found) == len(group["rules"]), "an alert twice"
    return found


def promtool(*arguments: str | Path) -> str:
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_prometheus_accepts_the_rules() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_beside_it() -> None:
    """The cases are in the file; here that Prometheus finds them right and that none is missing."""
    cases = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    judged = {(c["alertname"], bool(c["exp_alerts"])) for case in cases for c in case["alert_rule_test"]}
    assert judged == {(name, fires) for name in rules() for fires in (True, False)}
    promtool("test", "rules", RULE_TESTS)


def test_a_rule_that_never_fires_is_found(tmp_path: Path) -> None:
    """The test of the tests: each rule in turn gets an expression without a result. Its own cases find that."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    loaded, tests = yaml.safe_load(RULES.read_text()), yaml.safe_load(RULE_TESTS.read_text())
    cases = tests["tests"]
    for rule in loaded["groups"][0]["rules"]:
        kept, rule["expr"] = rule["expr"], "vector(0) > 1"
        own = [case for case in cases if any(c["alertname"] == rule["alert"] for c in case["alert_rule_test"])]
        (tmp_path / RULES.name).write_text(yaml.safe_dump(loaded))
        (tmp_path / RULE_TESTS.name).write_text(yaml.safe_dump(tests | {"tests": own}))
        command = [PROMTOOL, "test", "rules", str(tmp_path / RULE_TESTS.name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0, rule["alert"]
        assert rule["alert"] in done.stdout + done.stderr
        rule["expr"] = kept


def test_the_metrics_and_label_values_of_the_rules_exist() -> None:
    """A rule on a name that nobody exposes is silent for ever."""
    catalogue = {metric.name: metric for metric in METRICS}
    for name, rule in rules().items():
        for metric, selector in re.findall(r"\b(up|process_\w+|runstep_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            if metric in _NOT_OURS:
                continue
            known = catalogue.get(metric) or catalogue[metric.removesuffix("_bucket")]
            assert metric == known.name or known.type is Type.HISTOGRAM, f"{name}: {metric}"
            labels = {label.name: label.values for label in known.labels}
            for label, value in re.findall(r'(\w+)!?="([^"]*)"', selector):
                assert label in labels, f"{name}: {metric} has no label {label}"
                assert not labels[label] or value in labels[label], f"{name}: {label}={value}"


def test_thresholds_that_follow_settings_are_those_of_the_defaults() -> None:
    settings = Settings()
    assert f"> {settings.steps.max_age_s} + {settings.steps.grace_s}" in rules()["RunStepsOldStep"]["expr"]
    assert f"> {settings.steps.max_open_steps * 8 // 10}" in rules()["RunStepsOpenStepsNearLimit"]["expr"]
    assert f"> {settings.rejections.max_share / 2}" in rules()["RunStepsBreakerNear"]["expr"]


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"]: name for name, rule in rules().items()}
    assert len(linked) == len(rules())
    pages = {f"docs/runbook/{page.name}" for page in RUNBOOK.glob("*.md")} - {"docs/runbook/README.md"}
    assert set(linked) == pages
    for path, name in linked.items():
        text = (ROOT / path).read_text()
        assert text.startswith(f"# {name}\n"), path
        assert re.findall(r"(?m)^## (.*)$", text) == _SECTIONS, path


def test_the_runbook_lists_every_alert() -> None:
    """In the order of the rules, with their severity."""
    expected = [(name, rule["labels"]["severity"]) for name, rule in rules().items()]
    text = (RUNBOOK / "README.md").read_text()
    assert re.findall(r"(?m)^\| \[(RunSteps\w+)\]\([\w/-]+\.md\) \| (\w+) \|", text) == expected
