"""The Helm chart renders what Kubernetes accepts; the plain manifests are its rendering; the systemd unit agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm" / "run-steps"
UNIT: Final = DEPLOY / "systemd" / "run-steps.service"
HELM: Final = shutil.which("helm")
KUBERNETES: Final = ("1.29", "1.37")
EVERYTHING: Final = (
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "keda.enabled=true",
    "serviceMonitor.labels.release=prometheus",
    "podAnnotations.team=agents",
    "podLabels.team=agents",
    "nodeSelector.disk=fast",
    "priorityClassName=high",
    "imagePullSecrets[0].name=registry",
    "tolerations[0].key=dedicated",
    "tolerations[0].operator=Exists",
)
# Kinds of the Prometheus Operator and of KEDA: Kubernetes itself does not know them.
CUSTOM: Final = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}


def helm(*arguments: str | Path, accepts: bool = True) -> str:
    if HELM is None:
        pytest.skip("helm is not installed")
    done = subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) is accepts, done.stdout + done.stderr
    return done.stdout if accepts else done.stdout + done.stderr


def rendered(*values: str, release: str = "run-steps") -> dict[str, dict[str, Any]]:
    options = [option for value in values for option in ("--set", value)]
    documents = [d for d in yaml.safe_load_all(helm("template", release, CHART, *options)) if d]
    found = {document["kind"]: document for document in documents}
    assert len(found) == len(documents), "a kind twice"
    return found


def test_helm_finds_nothing_to_complain_of() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_the_plain_manifests_are_the_rendered_chart(tmp_path: Path) -> None:
    """`make manifests` writes them; whoever changes the chart runs it."""
    if HELM is None:
        pytest.skip("helm is not installed")
    subprocess.run([DEPLOY / "render-manifests.sh", tmp_path], check=True, timeout=120)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in (DEPLOY / "k8s").iterdir()}
    del kept["secret.example.yaml"]
    assert written == kept


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_knows_every_field(values: tuple[str, ...], version: str) -> None:
    """Strict: a field that Kubernetes would drop in silence is an error."""
    documents = rendered(*values)
    assert set(documents) >= {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"}
    assert (set(documents) >= CUSTOM) is bool(values)
    for kind in set(documents) - CUSTOM:
        kubernetes_validate.validate(documents[kind], version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    """The test of the test above."""
    service = rendered()["Service"]
    service["spec"]["publishNotReady"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES[-1], strict=True)


def test_another_release_has_names_of_its_own_that_fit_together() -> None:
    """Two releases in one namespace must not select each other's pods."""
    documents = rendered(*EVERYTHING, release="eu")
    names = {document["metadata"]["name"] for document in documents.values()}
    assert names == {"eu-run-steps"}
    stateful = documents["StatefulSet"]["spec"]
    labels = stateful["template"]["metadata"]["labels"].items()
    for selector in (
        stateful["selector"]["matchLabels"],
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector["app.kubernetes.io/instance"] == "eu"
        assert selector.items() <= labels
    monitor = documents["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= documents["Service"]["metadata"]["labels"].items()
    assert documents["Service"]["metadata"]["labels"][monitor["jobLabel"]] == "run-steps", "the rules' job name"
    assert documents["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == "eu-run-steps"
    assert stateful["template"]["spec"]["volumes"][0]["configMap"]["name"] == "eu-run-steps"


def test_the_rules_of_the_operator_are_the_rules_of_the_file() -> None:
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    assert rendered("prometheusRule.enabled=true")["PrometheusRule"]["spec"] == alerts


def test_keda_scales_between_its_bounds_and_nothing_else_sets_the_number() -> None:
    """A `replicas` beside an autoscaler is put back by every upgrade."""
    documents = rendered("keda.enabled=true", "keda.partitions=6", "keda.minReplicas=2")
    scaled = documents["ScaledObject"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 6)
    assert "replicas" not in documents["StatefulSet"]["spec"]
    assert rendered("replicas=5")["StatefulSet"]["spec"]["replicas"] == 5


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("replicaCount=3", "replicaCount"),
        ("replicas=-1", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("keda.partitions=0", "partitions"),
        ("networkPolicy.from=null", "from"),
        ("serviceMonitor.interval=often", "interval"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(value: str, named: str) -> None:
    if named == "from":
        value = "networkPolicy.from=anyone"
    assert named in helm("template", "run-steps", CHART, "--set", value, accepts=False)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["httpPort=9000"], "httpPort: must be http.port of config, which is 8080 where it is not set (got 9000"),
        (["config=[http]\n# port = 1\n\n'port' = 9_000 # x\n"], "(got 8080, and 9000 in config)"),
        (["config=http.port=9000"], "(got 8080, and 9000 in config)"),
        (["config=[http]\nenabled = false"], "config: http.enabled must not be false"),
        (["terminationGracePeriodSeconds=35"], "commit_timeout_s of config, 20.0 + 15 (got 35)"),
        (["config=[delivery] # x\ncommit_timeout_s = 30.5\n"], "commit_timeout_s of config, 20 + 30.5 (got 45)"),
        (["livenessSeconds=249"], "livenessSeconds: must be at least 250"),
        (["config=[kafka]\nunavailable_after_s = 900\n"], "must be at least 850"),
        (["config=[kafka]\nunavailable_after_s = 60\n", "livenessSeconds=60"], "must be at least 70"),
        (["config=[supervisor]\nstall_timeout_s = 900.0\n"], "must be at least 460"),
        (['config=[kafka]\nsasl_password = "x"'], "config: a password does not belong here"),
        (["config=kafka.ssl_key_password = 'x'"], "config: a password does not belong here"),
        (["keda.enabled=true", "keda.minReplicas=13"], "keda.minReplicas: must not exceed keda.partitions"),
    ],
)
def test_a_config_that_contradicts_the_values_or_holds_a_password_is_refused(values: list[str], says: str) -> None:
    """Else a probe asks where nobody listens, and restarts the worker for ever; or it is killed while it drains."""
    options = [option for value in values for option in ("--set", value)]
    assert says in helm("template", "run-steps", CHART, *options, accepts=False)


def test_settings_that_fit_are_taken_however_they_are_written() -> None:
    """The file that lists all keys, its empty passwords included; and what is of another table does not count."""
    helm("template", "run-steps", CHART, "--set-file", f"config={ROOT / 'config' / 'processor.toml'}")
    config = "[self_audit]\nenabled = false\n[http]\nport = 9000\n[delivery]\ndrain_timeout_s = 60"
    rendered(f"config={config}", "httpPort=9000", "terminationGracePeriodSeconds=90")
    rendered("livenessSeconds=250")
    rendered("config=[kafka]\nunavailable_after_s = 9_00.0\n", "livenessSeconds=850")


def test_a_change_of_the_settings_restarts_the_workers() -> None:
    """A ConfigMap alone changes no pod."""

    def annotations(*values: str) -> dict[str, str]:
        return dict(rendered(*values)["StatefulSet"]["spec"]["template"]["metadata"]["annotations"])

    before, after = annotations(), annotations('config=[log]\nformat = "json"')
    assert {key for key in before if before[key] != after[key]} == {"checksum/config"}


# --- systemd


def test_systemd_does_not_restart_what_a_restart_cannot_change() -> None:
    """The codes are those that the table of operations.md answers with "no" or with an operator."""
    text = UNIT.read_text()
    (codes,) = re.findall(r"(?m)^RestartPreventExitStatus=(.*)$", text)
    rows = re.findall(r"(?m)^\| (\d+) \| .* \| ([^|]*) \|$", (ROOT / "docs" / "operations.md").read_text())
    kept_down = {code for code, restart in rows if restart.startswith(("no", "after"))}
    assert set(codes.split()) == kept_down - {"69"}  # 69 is of `broker` and `demo`


def test_the_unit_names_no_page_that_nothing_installs() -> None:
    assert "Documentation=file:" not in UNIT.read_text()


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With an executable in the place of ours: the check looks for it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/run-steps/bin/run-steps", "/bin/true"))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=120)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not complaints
