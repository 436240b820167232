"""Clusters of one or three brokers of the embedded Apache Kafka, to be paused, killed and restarted by their role.

Every node has two listeners: INTERNAL for the other brokers and for the witnesses of a test, and CLIENT for the
workers, whose advertised address is that of a `Proxy` if there is one. 127.0.0.1 only, free ports, one directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]

from processor.broker import node as embedded
from processor.broker import parts, probe, settings
from tests import kafka_tools as kt
from tests.faults.proxy import HOST, Proxy
from tests.faults.worker_fleet import eventually

START_S: Final = 90.0
_GROUP_LOG: Final = "__consumer_offsets"
_TRANSACTION_LOG: Final = "__transaction_state"

_SEVERAL: Final[Mapping[str, str]] = {
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.election.backoff.max.ms": "1000",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "num.io.threads": "3",
    "num.network.threads": "2",
    "initial.broker.registration.timeout.ms": "60000",
    # A coordinator that has sent the end of a transaction to a broker that hangs sends it anew after this time, and
    # answers nothing about the transactional id before (Kafka's default: 30 s; docs/operations.md).
    "request.timeout.ms": "3000",
}
"""Over the settings of a node that is alone."""


class Node:
    """One broker, which is a controller as well."""

    def __init__(self, cluster: Cluster, number: int, ports: tuple[int, int, int], advertised: int) -> None:
        self._cluster, self.id = cluster, number
        self.home = cluster.home / f"node-{number}"
        self.controller_port, self.internal_port, self.client_port = ports
        self.advertised_port = advertised
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log_path(self) -> Path:
        return self.home / "broker.log"

    def launch(self) -> None:
        """Start it; see `await_ready`."""
        assert not self.is_alive
        self._dismiss_watchdog()
        caches = sorted(parts.kafka_cache().glob("start-*.aot"), key=lambda path: path.stat().st_mtime)
        quick = [f"-XX:AOTCache={caches[-1]}"] if caches else []  # the newest is this environment's, as a rule
        heap = f"-Xmx{self._cluster.heap_mb}m"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(heap, *quick), "kafka.Kafka", str(self._config)],
                cwd=self.home,
                env=embedded._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watchdog = embedded._watch(self._process.pid, None)

    def await_ready(self, within_s: float = START_S) -> None:
        """Wait until it serves its cluster."""

        def serves() -> bool:
            assert self.is_alive, f"node {self.id} ended:\n{self.log_path.read_text(errors='replace')[-3000:]}"
            return probe.serving_cluster(self.internal_port) == self._cluster.cluster_id

        eventually(f"node {self.id} serves", serves, within_s, every_s=0.1)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a power cut would; the data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
        self._dismiss_watchdog()

    def stop(self, within_s: float = 30.0) -> None:
        """SIGTERM; SIGKILL if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self.kill()

    def restart(self) -> None:
        """End it if it runs, start it on the same ports and data, and wait until it serves."""
        self.kill()
        self.launch()
        self.await_ready()

    def prepare(self, nodes: list[Node]) -> None:
        """Write its settings and format its data."""
        (self.home / "tmp").mkdir(parents=True)
        several = len(nodes) > 1
        replicas, in_sync = str(len(nodes)), "2" if several else "1"
        listeners = {"INTERNAL": self.internal_port, "CLIENT": self.client_port, "CONTROLLER": self.controller_port}
        told = {
            **settings._ALWAYS,
            **settings._LIGHT,
            **(_SEVERAL if several else {}),
            "node.id": str(self.id),
            "log.dirs": str(self.home / "data"),
            "controller.quorum.voters": ",".join(f"{n.id}@{HOST}:{n.controller_port}" for n in nodes),
            "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items()),
            "advertised.listeners": f"INTERNAL://{HOST}:{self.internal_port},CLIENT://{HOST}:{self.advertised_port}",
            "inter.broker.listener.name": "INTERNAL",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            **self._cluster.settings,
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in told.items()))
        version = self._cluster.transaction_version
        feature = [] if version is None else ["--feature", f"transaction.version={version}"]
        tool = ["kafka.tools.StorageTool", "format", "-t", self._cluster.cluster_id, "-c", str(self._config), *feature]
        done = subprocess.run(
            [*self._java(), *tool],
            cwd=self.home,
            env=embedded._environment(),
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    @property
    def _config(self) -> Path:
        return self.home / "server.properties"

    def _java(self, *options: str) -> list[str]:
        return [
            str(self._cluster.java.command),
            *options,
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            "-XX:-UsePerfData",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            os.pathsep.join(map(str, self._cluster.jars)),
        ]

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"node {self.id} was not started"
        return self._process

    def _dismiss_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.communicate(b"done\n")


class Cluster:
    """One broker, or three with replication factor 3 and min.insync.replicas 2. Leaving the block ends them.

    Args:
        home: an empty or new directory for their data and logs.
        proxy: between the workers and the brokers; ended by its owner.
        transaction_version: of the feature `transaction.version`; 1: brokers without KIP-890's second part. None: the
            newest that the release has.
        broker_settings: Kafka's own, laid over ours.
    """

    def __init__(
        self,
        home: Path,
        nodes: int = 1,
        *,
        proxy: Proxy | None = None,
        transaction_version: int | None = None,
        broker_settings: Mapping[str, str] | None = None,
        heap_mb: int = 256,
    ) -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.home, self.proxy, self.heap_mb = home, proxy, heap_mb
        self.transaction_version = transaction_version
        self.settings = dict(broker_settings or {})
        self.java = parts.find_java()
        self.jars = parts.obtain_jars(parts.kafka_cache(), source=parts.repository())
        self.cluster_id = embedded._new_cluster_id()
        free = probe.free_ports()
        self.nodes: list[Node] = []
        for number in range(1, nodes + 1):
            ports = (next(free), next(free), next(free))
            advertised = ports[2] if proxy is None else proxy.listen(ports[2])
            self.nodes.append(Node(self, number, ports, advertised))
        self._admin: AdminClient | None = None
        try:
            for node in self.nodes:
                node.prepare(self.nodes)
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.await_ready()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """For witnesses: past the proxy."""
        return ",".join(f"{HOST}:{node.internal_port}" for node in self.nodes)

    @property
    def client_bootstrap(self) -> str:
        """For workers: through the proxy, if there is one."""
        return ",".join(f"{HOST}:{node.advertised_port}" for node in self.nodes)

    @property
    def replicas(self) -> int:
        return len(self.nodes)

    def node(self, number: int) -> Node:
        return self.nodes[number - 1]

    def leader(self, topic: str, partition: int) -> Node:
        """The leader of a partition."""

        def led() -> int:
            number: int = self._listed(topic).topics[topic].partitions[partition].leader
            return max(number, 0)

        return self.node(eventually(f"a leader of {topic}-{partition}", led, START_S, every_s=0.2))

    def group_coordinator(self, group: str) -> Node:
        return self._coordinator(group, _GROUP_LOG)

    def transaction_coordinator(self, transactional_id: str) -> Node:
        return self._coordinator(transactional_id, _TRANSACTION_LOG)

    def controller(self) -> Node:
        """The active controller, as the nodes' own quorum files name it; a client is not told in KRaft."""

        def known() -> int:
            newest = (0, 0)
            for node in self.nodes:
                path = node.home / "data" / "__cluster_metadata-0" / "quorum-state"
                with contextlib.suppress(OSError, ValueError):
                    state = json.loads(path.read_text())
                    newest = max(newest, (state["leaderEpoch"], max(state["leaderId"], 0)))
            return newest[1]

        return self.node(eventually("an active controller", known, START_S, every_s=0.2))

    def await_in_sync(self, within_s: float = 90.0) -> None:
        """Wait until every partition has all its replicas in sync, as every node sees it.

        Each is asked: one that hung and goes on says that all is as it was, until it has read what happened meanwhile.
        """

        def whole() -> bool:
            return all(_sees_all_in_sync(node.internal_port) for node in self.nodes)

        eventually("all replicas are in sync", whole, within_s, every_s=0.5)

    def await_all(self) -> None:
        """Resume and restart what is paused or dead, and wait until all serve."""
        for node in self.nodes:
            if node.is_alive:
                node.resume()
            else:
                node.launch()
        for node in self.nodes:
            node.await_ready()

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = kt.admin(self.bootstrap, socket_timeout_ms=10_000, reconnect_backoff_max_ms=1_000)
        return self._admin

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listed(self, topic: str | None = None) -> ClusterMetadata:
        return kt.patiently(lambda: self.admin.list_topics(topic, timeout=15))

    def _coordinator(self, key: str, topic: str) -> Node:
        """The leader of the partition of an internal topic that a key hashes to, as Java's String does."""
        deadline = time.monotonic() + START_S
        while not (count := len(self._listed(topic).topics[topic].partitions)):
            assert time.monotonic() < deadline, f"{topic} does not come to be"
            time.sleep(0.2)
        hashed = 0
        for letter in key:
            hashed = (31 * hashed + ord(letter)) & 0xFFFFFFFF
        return self.leader(topic, (hashed & 0x7FFFFFFF) % count)


def _sees_all_in_sync(port: int, within_s: float = 15.0) -> bool:
    """Ask this very broker for its metadata (v1); a client library would ask any of them."""
    request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", -1)  # no client id, all topics
    try:
        with socket.create_connection((HOST, port), timeout=within_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                (size,) = struct.unpack(">i", answers.read(4))
                answer = _Reader(answers.read(size))
    except (OSError, struct.error):
        return False
    answer.number(">i")  # the correlation id
    for _ in range(answer.number(">i")):
        answer.number(">i"), answer.text(), answer.number(">i"), answer.text()  # id, host, port, rack
    answer.number(">i")  # the controller
    is_whole = True
    for _ in range(answer.number(">i")):
        answer.number(">h"), answer.text(), answer.number(">b")  # error, name, whether it is internal
        for _ in range(answer.number(">i")):
            answer.number(">h"), answer.number(">i"), answer.number(">i")  # error, partition, leader
            replicas, in_sync = answer.numbers(), answer.numbers()
            is_whole = is_whole and set(replicas) == set(in_sync)
    return is_whole


class _Reader:
    """Takes an answer apart."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, form: str) -> int:
        (found,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(found)

    def numbers(self) -> list[int]:
        return [self.number(">i") for _ in range(self.number(">i"))]

    def text(self) -> bytes:
        length = max(0, self.number(">h"))
        self._at += length
        return self._data[self._at - length : self._at]
