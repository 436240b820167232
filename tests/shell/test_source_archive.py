"""The source archive compiles itself where it can, and says why where it cannot (docs/decisions/0006)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from processor.compilation import FILE, why_not_compiled
from tests import compiled_wheel, wheels

COMPILE: Final = "HATCH_BUILD_HOOKS_ENABLE"
NEWEST: Final = ("3.13", "3.12")
"""Pythons beside our own for which an installation is tried, the first that there is."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    subprocess.run(command, cwd=compiled_wheel.ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def build(archive: Path, into: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Make a wheel of the archive, with the build tools of this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    usual = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", COMPILE: ""}
    return subprocess.run(
        [*command, str(into), str(archive)],
        env=os.environ | usual | dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def laid_open(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    room = folder / "room"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(room)
    return room


@pytest.fixture(scope="module")
def broken_mypyc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder before all others on the path in which the compiler cannot be imported: PYTHONPATH."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "mypyc").mkdir()
    (folder / "mypyc" / "__init__.py").write_text("raise ImportError('No module named mypyc: taken away')\n")
    return str(folder)


def test_without_a_compiler_it_installs_as_python_and_the_program_says_so(archive: Path, tmp_path: Path) -> None:
    done = build(archive, tmp_path, {"CC": "no-such-compiler"})
    assert done.returncode == 0, done.stdout
    assert "the core is not compiled" in done.stdout
    room = laid_open(tmp_path)
    environ = os.environ | {"PYTHONPATH": str(room)}
    command = [sys.executable, "-m", "processor", "--version"]
    said = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout
    assert "(core: pure," in said
    assert "the core was not compiled when this was installed: no C compiler (no-such-compiler)" in said


def test_a_compiler_that_fails_is_named_in_the_wheel(archive: Path, tmp_path: Path, broken_mypyc: str) -> None:
    done = build(archive, tmp_path, {"PYTHONPATH": broken_mypyc})
    assert done.returncode == 0, done.stdout
    note = (laid_open(tmp_path) / "processor" / FILE).read_text()
    assert note.startswith("the C compiler or mypyc failed: ")
    assert "taken away" in note


def test_what_was_demanded_is_an_error_where_it_cannot_be_had(archive: Path, tmp_path: Path, broken_mypyc: str) -> None:
    for lacking, said in (({"PYTHONPATH": broken_mypyc}, "taken away"), ({"CC": "no-such-one"}, "no C compiler")):
        done = build(archive, tmp_path, {COMPILE: "1", **lacking})
        assert done.returncode != 0
        assert said in done.stdout
        assert not list(tmp_path.glob("*.whl"))


def test_python_alone_can_be_demanded(archive: Path, tmp_path: Path, broken_mypyc: str) -> None:
    """And is no failure that anybody is told of."""
    done = build(archive, tmp_path, {COMPILE: "0", "PYTHONPATH": broken_mypyc})
    assert done.returncode == 0, done.stdout
    assert not (laid_open(tmp_path) / "processor" / FILE).exists()


def test_a_worker_of_python_alone_says_so_at_its_start(tmp_path: Path) -> None:
    """With the reason that the installation left."""
    room = tmp_path / "room"
    shutil.copytree(compiled_wheel.ROOT / "processor", room / "processor")
    (room / "processor" / FILE).write_text("no C compiler (cc)\n")
    code = (
        "import io\n"
        "from processor.telemetry.happenings import WorkerStarted\n"
        "from processor.telemetry.telemetry import Telemetry\n"
        "out = io.StringIO()\n"
        "Telemetry(stream=out).happened(WorkerStarted('in', 'group', 'exactly_once', 'id'))\n"
        "print(out.getvalue())"
    )
    environ = os.environ | {"PYTHONPATH": str(room)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines() if "core_is_pure" in line]
    assert line["reason"] == "no C compiler (cc)"
    assert line["level"] == "info"


def test_this_tree_has_no_note() -> None:
    assert why_not_compiled() == ""


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="takes minutes; CI=true runs it")
def test_an_installation_compiles_and_passes_the_tests_of_the_core(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install` as a user calls it, in an empty environment of the newest Python that is here.

    Without the compiler's optimisations, and without the tests that take longest: `test_compiled_wheel` and
    `make wheels-check` try what has them.
    """
    if lacking := compiled_wheel.missing():
        pytest.skip(lacking)
    for name, level in compiled_wheel.SOON.items():
        monkeypatch.setenv(name, level)
    assert " passed" in wheels.check(archive, newest_python(), tmp_path, is_quick=True)


def newest_python() -> str:
    """The newest that answers, else our own."""
    shims = Path.home() / ".pyenv" / "versions"
    for version in NEWEST:
        for found in (shutil.which(f"python{version}"), *map(str, shims.glob(f"{version}.*/bin/python{version}"))):
            if found and subprocess.run([found, "-c", "import venv, ctypes"], capture_output=True).returncode == 0:
                return found
    return sys.executable
