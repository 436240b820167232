"""One Apache Kafka node in KRaft mode, broker and controller in one process, on 127.0.0.1 only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from processor.broker import parts, probe
from processor.broker.settings import HOST, Options, Security, properties
from processor.errors import BrokerUnavailable

_START_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 10.0
_AOT_DEADLINE_S: Final = 60.0
_PORT_ATTEMPTS: Final = 5
_LOG_TAIL_LINES: Final = 15

_INHERITED_JAVA_OPTIONS: Final = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")


class Broker:
    """A running node. Get one from `start`; end it with `stop`, or leave the `with` block.

    If this Python process dies without stopping it, the broker is killed and its temporary directory removed.
    """

    def __init__(
        self, java: parts.Java, jars: Sequence[Path], home: Path, options: Options, progress: parts.Progress
    ) -> None:
        self._java = java
        self._jars = jars
        self._cache = parts.kafka_cache()
        self._home = home
        self._options = options
        self._progress = progress
        self._ports = options.ports
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._training: Path | None = None
        self.log_path = home / "broker.log"

    @classmethod
    def start(
        cls,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        heap_mb: int = 256,
        light: bool = True,
        security: Security | None = None,
        repository: str | None = None,
        progress: parts.Progress = parts.silent,
    ) -> Broker:
        """Start a node and wait until it serves.

        Args:
            data_dir: where its records live, kept at stop; None: a temporary directory, removed at stop.
            port: of the plain listener; None: a free one.
            settings: Kafka's own, laid over ours.
            light: few threads and little memory, quick to start; False: Kafka's defaults, for throughput.
            repository: the Maven repository for a first download; see `parts.repository`.
            progress: told, in words, what takes long.

        Raises:
            PartsUnavailable, PartsRefused: see `parts`.
            UsageError: `port` is taken.
            BrokerUnavailable: it ended or stayed silent; the message has the end of its log.
        """
        java = parts.find_java()
        jars = parts.obtain_jars(parts.kafka_cache(), source=repository or parts.repository(), progress=progress)
        progress(f"starting Apache Kafka {parts.KAFKA_VERSION}")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            options = Options(
                probe.choose_ports(port), dict(settings or {}), heap_mb, light, security, data_dir is None
            )
            home = Path(tempfile.mkdtemp(prefix="run-steps-broker-")) if data_dir is None else data_dir.absolute()
            broker = cls(java, jars, home, options, progress)
            try:
                broker._prepare()
                broker._launch()
            except BaseException as exc:
                port_lost = "Address already in use" in broker.log_tail(lines=1000)
                broker._discard()
                if port is None and port_lost and attempt < _PORT_ATTEMPTS and isinstance(exc, BrokerUnavailable):
                    continue
                raise
            return broker
        raise AssertionError("unreachable: the last attempt returns or raises")

    # --- what callers see ---

    @property
    def bootstrap(self) -> str:
        """The plain listener."""
        return f"{HOST}:{self._ports.plain}"

    @property
    def bootstrap_ssl(self) -> str:
        """The TLS listener of a broker with `Security`."""
        return f"{HOST}:{self._ports.ssl}"

    @property
    def bootstrap_sasl_ssl(self) -> str:
        """The SASL over TLS listener of a broker with `Security`."""
        return f"{HOST}:{self._ports.sasl_ssl}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def data_dir(self) -> Path:
        return self._home

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """The end of what the node wrote; empty if it wrote nothing."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def cpu_seconds(self) -> float:
        """CPU time, user and system, the node has used since its last start."""
        return _cpu_seconds(self.pid)

    def pause(self) -> None:
        """Freeze the node (SIGSTOP): connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL). The data stay; `restart` is possible."""
        self._end_at_once(self._running())

    def restart(self) -> None:
        """Start again on the same ports and data; ends the node first if it runs."""
        self._end(_STOP_DEADLINE_S)
        self._launch()

    def stop(self, timeout_s: float = _STOP_DEADLINE_S) -> None:
        """End it (SIGTERM, after `timeout_s` SIGKILL) and remove its directory if that was temporary.

        The first stop on a machine takes some seconds more: Java then writes what makes later starts quicker.
        """
        self._end(timeout_s)
        self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- starting ---

    def _prepare(self) -> None:
        """Write the settings, and format the data directory unless it is formatted already."""
        (self._home / "tmp").mkdir(parents=True, exist_ok=True)
        self._config.touch(mode=0o600)  # before the passwords of a `Security` go in
        self._configure(self._options)
        if (self._data / "meta.properties").exists():
            return
        if self._options.security is not None:
            self._format(self._options.security.users)
            return
        template = self._cache / "formatted"
        if template.exists():
            with _arriving(self._data) as incoming:
                shutil.copytree(template, incoming)
                _rename_cluster(incoming, _new_cluster_id())
            return
        # The template is for every later start: the settings of this one must not get into it.
        self._configure(replace(self._options, settings={}))
        self._format({})
        self._configure(self._options)
        with _arriving(template) as incoming:
            shutil.copytree(self._data, incoming)

    def _configure(self, options: Options) -> None:
        lines = (f"{key}={value}\n" for key, value in properties(options, self._data).items())
        self._config.write_text("".join(lines), encoding="utf-8")

    def _format(self, users: Mapping[str, str]) -> None:
        """Format as StorageTool does: files of our own making would lack the feature levels of transactions."""
        scram = [
            word
            for name, password in users.items()
            for word in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
        ]
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", str(self._config), *scram]
        quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        done = subprocess.run(
            [self._java.command, *self._java_flags(), *quick, *self._class_path(), *tool],
            cwd=self._home,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_START_DEADLINE_S,
        )
        if done.returncode != 0:
            raise BrokerUnavailable(f"broker: {self._home}: could not be formatted: {done.stderr[-2000:].strip()}")

    def _launch(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._java.command, *self._node_flags(), *self._class_path(), "kafka.Kafka", self._config],
                cwd=self._home,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C goes to us; we end the node in order
            )
        self._watchdog = _watch(self._process.pid, self._home if self._options.is_temporary else None)
        try:
            self._await_ready(self._process, _START_DEADLINE_S)
        except BaseException:
            self._end_at_once(self._process)
            raise

    def _await_ready(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        own = _cluster_id(self._data)
        while probe.serving_cluster(self._ports.plain) != own:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.02)
                raise BrokerUnavailable(
                    f"broker: {self.bootstrap}: it ended while starting (exit {code}); the end of its log:\n"
                    f"{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"broker: {self.bootstrap}: not ready after {deadline_s:.0f} s; the end of its log:\n"
                    f"{self.log_tail()}"
                )

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _config(self) -> Path:
        return self._home / "server.properties"

    def _class_path(self) -> list[str]:
        return ["-cp", os.pathsep.join(map(str, self._jars))]

    def _java_flags(self) -> list[str]:
        # Native codecs unpack themselves into the temporary directory, and a killed JVM leaves them there.
        return [
            f"-Djava.io.tmpdir={self._home / 'tmp'}",
            "-XX:-UsePerfData",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        ]

    def _node_flags(self) -> list[str]:
        heap = [f"-Xmx{self._options.heap_mb}m"]
        if not self._options.is_light:
            return [*self._java_flags(), *heap, f"-Xms{self._options.heap_mb}m"]
        return [*self._java_flags(), *heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *self._aot_flags()]

    # --- Java's ahead-of-time cache: halves the time to start (JEP 483, 514) ---

    def _aot_flags(self) -> list[str]:
        """Use the cache if there is one for this very Java and these very jars; else write it at the next stop.

        Java itself checks that the cache fits, and ignores it with a line in the log if it does not.
        """
        if self._java.feature < 25:
            return []
        stamp = hashlib.sha256()
        for path in (self._java.command, *self._jars):
            stamp.update(f"{path} {path.stat().st_mtime_ns}\n".encode())
        ready = self._cache / f"start-{stamp.hexdigest()[:16]}.aot"
        if ready.exists():
            return [f"-XX:AOTCache={ready}"]
        self._training = ready
        return [f"-XX:AOTCacheOutput={self._training_file(ready)}"]

    def _training_file(self, ready: Path) -> Path:
        return self._home / "tmp" / ready.name

    def _finish_training(self) -> None:
        if self._training is not None and self._training_file(self._training).exists():
            with _arriving(self._training) as incoming:
                shutil.move(self._training_file(self._training), incoming)
        self._abandon_training()

    def _abandon_training(self) -> None:
        if self._training is not None:
            self._training_file(self._training).unlink(missing_ok=True)
        self._training = None

    # --- ending ---

    def _end(self, timeout_s: float) -> None:
        """Stop the node in order if possible. One that ended by itself still has a watchdog process to end."""
        if self._process is None:
            return
        if self._training is not None:
            self._progress("stopping; this once it takes some seconds, to make later starts quicker")
        self._process.terminate()
        try:
            self._process.wait(timeout_s if self._training is None else timeout_s + _AOT_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._end_at_once(self._process)
            return
        self._dismiss_watchdog()
        self._finish_training()

    def _end_at_once(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._dismiss_watchdog()
        self._abandon_training()

    def _discard(self) -> None:
        if self._options.is_temporary:
            shutil.rmtree(self._home, ignore_errors=True)

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.communicate(b"done\n")
            self._watchdog = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise BrokerUnavailable(f"broker: {self.bootstrap}: it is not running")
        return self._process


def serve(port: int | None, data_dir: Path | None, echo: Callable[[str], None]) -> int:
    """Run a node in the foreground until SIGINT or SIGTERM. Call it from the main thread.

    Returns:
        The exit code: 0 after a signal, 75 if the node ended by itself.
    """
    # Trials play simulated runs, whose times lie years back: by the default their records would be deleted.
    kept = {"log.retention.ms": "-1"}
    broker = Broker.start(data_dir, port=port, progress=echo, settings=kept)
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        echo(
            f"Apache Kafka {parts.KAFKA_VERSION} serves on {broker.bootstrap} (data: {broker.data_dir}); Ctrl-C ends it"
        )
        while broker.is_alive() and not asked.wait(0.2):
            pass
        if not asked.is_set():
            echo(f"the broker ended by itself; the end of its log:\n{broker.log_tail()}")
            return BrokerUnavailable.exit_code
        echo("stopping")
        return 0
    finally:
        broker.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the data directory -------------------------------------------------------------------------------------


def _new_cluster_id() -> str:
    """Sixteen random bytes in URL-safe base 64, as StorageTool demands; no leading dash, it is an argument."""
    return base64.urlsafe_b64encode(b"\x00" + os.urandom(15)).rstrip(b"=").decode()


def _cluster_id(data: Path) -> str:
    found = re.search(r"^cluster\.id=(.+)$", (data / "meta.properties").read_text(), re.MULTILINE)
    if found is None:
        raise BrokerUnavailable(f"broker: {data}: meta.properties names no cluster.id", hint="remove the directory")
    return found[1].strip()


def _rename_cluster(data: Path, cluster_id: str) -> None:
    """Give a copied directory its own ids: a client must be able to tell two brokers apart."""
    meta = data / "meta.properties"
    meta.write_text(re.sub(r"^cluster\.id=.*$", f"cluster.id={cluster_id}", meta.read_text(), flags=re.MULTILINE))


def _environment() -> dict[str, str]:
    """Our environment without the variables that would change the node."""
    return {name: value for name, value in os.environ.items() if name not in _INHERITED_JAVA_OPTIONS}


# --- processes and files ------------------------------------------------------------------------------------


def _watch(group: int, temporary: Path | None) -> subprocess.Popen[bytes] | None:
    """Start a shell that kills the process group when this process is gone.

    It waits for a line from this process; when the process dies, in whatever way, its input ends instead. (The kernel's
    own signal at a parent's death comes when the *thread* that forked ends, which may be long before.)
    """
    if os.name != "posix":
        return None
    script = 'read -r word || { kill -s KILL -- "-$1"; [ -z "$2" ] || rm -rf -- "$2"; }'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "run-steps-broker-watchdog", str(group), str(temporary or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """To the node and whatever it started (Java writes its cache in a child process)."""
    if os.name != "posix":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        user, system = stat.read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    shown = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True)  # noqa: S607
    seconds = 0.0
    for unit in shown.stdout.strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(unit)
    return seconds


@contextlib.contextmanager
def _arriving(final: Path) -> Iterator[Path]:
    """A path to make a file or directory at; it becomes `final` at once, or is dropped if another came first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=final.parent) as directory:
        incoming = Path(directory, final.name)
        yield incoming
        with contextlib.suppress(OSError):  # another process was first: theirs is as good
            incoming.replace(final)
