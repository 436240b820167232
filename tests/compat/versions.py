"""One Apache Kafka broker of any release from 2.5 on, of Maven Central's jars, on 127.0.0.1.

Releases from 3.3 on are their own controller (KRaft); older ones get a ZooKeeper of the jars they bring along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from processor.broker import node as embedded
from processor.broker import parts, probe, settings
from tests.faults.proxy import HOST, Proxy

START_S: Final = 120.0
_FIRST_KRAFT: Final = (3, 3)
_LOG4J_1: Final = """log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
"""
_ZOOKEEPER: Final = """tickTime=500
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=*
"""
_SESSION_S: Final = 6.0


def number_of(version: str) -> tuple[int, ...]:
    """`3.9.1` as numbers."""
    return tuple(map(int, version.split(".")))


def jars_of(version: str) -> list[Path]:
    """The jars of a release and of all that it needs, downloaded once into the cache."""
    import jgo
    from jgo.maven import MavenContext

    home = parts.cache_dir() / f"compat-kafka-{version}"
    done = home / "complete"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        logging = "slf4j-simple:1.7.36" if number_of(version) >= (4, 0) else "slf4j-reload4j:1.7.36"
        context = MavenContext(repo_cache=home / "maven", remote_repos={"central": parts.repository()})
        found = {
            f"{one.groupId}:{one.artifactId}": one
            for endpoint in (f"org.apache.kafka:kafka_2.13:{version}", f"org.slf4j:{logging}")
            for one in jgo.resolve(endpoint)
        }
        # A binding of slf4j that a release brings along would be chosen in place of ours, or beside it.
        for name in ("org.slf4j:slf4j-log4j12", "log4j:log4j"):
            found.pop(name, None)

        def fetch(name: str) -> None:
            one = found[name]
            jar = context.project(one.groupId, one.artifactId).at_version(one.version).artifact(one.classifier or "")
            shutil.copy(jar.resolve(), home / f"{one.artifactId}-{one.version}-{one.classifier or 'jar'}.jar")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(fetch, sorted(found)))
        done.touch()
    return sorted(home.glob("*.jar"))


class Served:
    """A broker that scenarios of `tests.faults` can use as their cluster. Leaving the block ends it.

    Args:
        proxy: between the workers and the broker; ended by its owner.
    """

    replicas: Final = 1

    def __init__(self, version: str, home: Path, *, proxy: Proxy | None = None) -> None:
        self.version, self.home, self.proxy = version, home, proxy
        self.is_kraft = number_of(version) >= _FIRST_KRAFT
        self._jars = jars_of(version)
        self._java = parts.find_java()
        free = probe.free_ports()
        self._port, self._other, self._behind = next(free), next(free), next(free)
        self._client_port = self._behind if proxy is None else proxy.listen(self._behind)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdogs: dict[str, subprocess.Popen[bytes] | None] = {}
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        (home / "log4j.properties").write_text(_LOG4J_1)
        try:
            self._prepare()
            self.launch()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self._port}"

    @property
    def client_bootstrap(self) -> str:
        """For workers: through the proxy, if there is one."""
        return f"{HOST}:{self._client_port}"

    @property
    def java(self) -> str:
        """The Java that runs it, for the report."""
        return str(self._java.feature)

    def kill(self) -> None:
        """SIGKILL the broker, as a power cut would; ZooKeeper goes on."""
        self._end("kafka")

    def launch(self) -> None:
        """Start it and wait until it serves; again where ZooKeeper still holds the session of a killed one."""
        deadline = time.monotonic() + START_S
        while True:
            self._start("kafka", "kafka.Kafka", str(self._config))
            while self._processes["kafka"].poll() is None:
                if probe.serving_cluster(self._port):
                    return
                assert time.monotonic() < deadline, f"Kafka {self.version} does not serve:\n{self._tail('kafka')}"
                time.sleep(0.2)
            if self.is_kraft or time.monotonic() > deadline:
                raise AssertionError(f"Kafka {self.version} ended:\n{self._tail('kafka')}")
            time.sleep(1)

    def close(self) -> None:
        for name in list(self._processes):
            self._end(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        shutil.rmtree(self.home / "data", ignore_errors=True)

    @property
    def _config(self) -> Path:
        return self.home / "server.properties"

    def _prepare(self) -> None:
        data = self.home / "data"
        told = {
            **{k: v for k, v in {**settings._ALWAYS, **settings._LIGHT}.items() if not k.startswith("share.")},
            "log.dirs": str(data),
            "listeners": f"PLAINTEXT://{HOST}:{self._port},CLIENT://{HOST}:{self._behind}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self._port},CLIENT://{HOST}:{self._client_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }
        if self.is_kraft:
            told |= {
                "controller.quorum.voters": f"1@{HOST}:{self._other}",
                "listeners": f"{told['listeners']},CONTROLLER://{HOST}:{self._other}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }
            if number_of(self.version) >= (4, 0):
                told |= {k: v for k, v in {**settings._ALWAYS, **settings._LIGHT}.items() if k.startswith("share.")}
        else:
            for name in [n for n in told if n.startswith(("controller.", "process.", "node.", "initial.broker"))]:
                del told[name]
            told |= {
                "broker.id": "1",
                "zookeeper.connect": f"{HOST}:{self._other}",
                "zookeeper.session.timeout.ms": f"{_SESSION_S * 1000:.0f}",
            }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in told.items()))
        if self.is_kraft:
            tool = ["kafka.tools.StorageTool", "format", "-t", embedded._new_cluster_id(), "-c", str(self._config)]
            done = subprocess.run([*self._command(), *tool], cwd=self.home, capture_output=True, text=True, timeout=90)
            assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
            return
        (self.home / "zookeeper.properties").write_text(
            _ZOOKEEPER.format(data=self.home / "zookeeper", port=self._other)
        )
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        self._start("zookeeper", main, str(self.home / "zookeeper.properties"))
        deadline = time.monotonic() + START_S
        while probe._is_free(self._other):
            assert self._processes["zookeeper"].poll() is None, self._tail("zookeeper")
            assert time.monotonic() < deadline, "ZooKeeper does not serve"
            time.sleep(0.2)

    def _command(self) -> list[str]:
        return [
            str(self._java.command),
            "-Xmx320m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            f"-Dlog4j.configuration=file:{self.home / 'log4j.properties'}",
            "-Dzookeeper.admin.enableServer=false",
            "-cp",
            os.pathsep.join(map(str, self._jars)),
        ]

    def _start(self, name: str, *arguments: str) -> None:
        self._end(name)
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._command(), *arguments],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        self._watchdogs[name] = embedded._watch(process.pid, None)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait(60)
        watchdog = self._watchdogs.pop(name, None)
        if watchdog is not None:
            with contextlib.suppress(OSError, ValueError):
                watchdog.communicate(b"done\n")

    def _tail(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")[-3000:]
