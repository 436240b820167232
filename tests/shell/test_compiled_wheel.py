"""The core compiled is the core: it passes the same tests, and leaves the same bytes. The image is built with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from processor.archives import ArchivedRecord
from processor.core.partition import PartitionState
from tests import compiled_wheel
from tests.shell import mutations
from tests.shell.test_replay import Archived, contents

BUILD = tomllib.loads((compiled_wheel.ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
MODULES = [path.removesuffix(".py") for path in BUILD["hooks"]["custom"]["modules"]]
EXAMPLES = {"RUN_STEPS_EXAMPLES": "5"}  # of each property; that the properties hold is shown elsewhere


@dataclass(frozen=True)
class Image:
    """Where the build steps of the image were run, and what they said."""

    root: Path
    said: str


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image | None:
    """The RUN and COPY lines as written, in a directory, without a container engine. None: takes too long for here."""
    if os.environ.get("CI") != "true":
        return None
    root = tmp_path_factory.mktemp("image")
    done = subprocess.run(
        [compiled_wheel.ROOT / "deploy" / "build-image-steps.sh", root],
        # PYTHONPATH must not reach what was built.
        env=compiled_wheel.SAME_CODE | os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(compiled_wheel.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout
    return Image(root, done.stdout)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, image: Image | None) -> Path:
    """Where the compiled wheel is laid open: the image's, where there is one, for compiling takes a minute.

    The recordings, if there are any, lie beside it as beside the project.
    """
    if lacking := compiled_wheel.missing():
        pytest.skip(lacking)
    above = tmp_path_factory.mktemp("native")
    built = None
    if image is not None:
        (built,) = image.root.glob("build/wheels/run_steps-*.whl")
    compiled_wheel.lay_open(above / "room", built)
    (above / "shared").symlink_to(compiled_wheel.ROOT.parent / "shared")
    return above / "room"


def python(room: Path, *arguments: str, cwd: Path) -> str:
    """What a fresh Python says that imports from `room`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=EXAMPLES | os.environ | {"PYTHONPATH": str(room)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="takes minutes; CI=true runs it")
def test_the_build_steps_of_the_image_run(image: Image) -> None:
    """What they install is the compiled program and what it needs, and nothing that only builds or tests."""
    assert "run-steps 0.1.0 (core: compiled, fold version: " in image.said
    installed = [path.name for path in (image.root / "final/opt/run-steps").glob("lib/python*/site-packages/*")]
    assert "processor" in installed
    assert "pytest" not in installed
    assert not list((image.root / "final").rglob("*.whl"))


def test_the_hot_modules_are_compiled_and_the_program_says_so(room: Path, tmp_path: Path) -> None:
    names = [path.replace("/", ".") for path in MODULES]
    code = f"import importlib\nfor name in {names}: print(importlib.import_module(name).__file__)"
    files = python(room, "-c", code, cwd=tmp_path).split()
    assert files == [f"{room / path}{compiled_wheel.EXTENSION}" for path in MODULES]
    assert python(room, "-m", "processor", "--version", cwd=tmp_path).startswith("run-steps 0.1.0 (core: compiled,")
    assert python(compiled_wheel.ROOT, "-m", "processor", "--version", cwd=tmp_path).startswith(
        "run-steps 0.1.0 (core: pure,"
    )


def test_both_wheels_hold_the_source_and_the_project_is_left_as_it_was(room: Path, tmp_path: Path) -> None:
    """What lies compiled beside the source would be imported in its place, long after the source has changed."""
    plain = compiled_wheel.wheel(tmp_path, compiled=False)
    assert plain.name.endswith("-py3-none-any.whl")
    held = zipfile.ZipFile(plain).namelist()
    assert not [name for name in held if name.endswith(compiled_wheel.EXTENSION)]
    assert {f"{path}.py" for path in MODULES} <= set(held)
    assert all((room / f"{path}.py").exists() for path in MODULES)
    assert not [path for path in compiled_wheel.ROOT.glob("*") if path.name.endswith(compiled_wheel.EXTENSION)]
    assert not [*(compiled_wheel.ROOT / "processor").rglob(f"*{compiled_wheel.EXTENSION}")]


def test_the_tests_of_the_core_pass(room: Path) -> None:
    """The simulation, with and without crashes, is among them."""
    told = python(room, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core", cwd=room)
    assert " passed" in told.splitlines()[-1]


def test_its_evidence_is_the_same_to_the_byte(room: Path, tmp_path: Path) -> None:
    """Effects, checkpoints, archives and the report: who compiles can prove what a pure worker published, and back."""
    found = []
    for kind, place in (("pure", compiled_wheel.ROOT), ("compiled", room)):
        folder = tmp_path / kind
        folder.mkdir()
        assert python(place, "-m", __name__, cwd=folder) == f"{place}\n"
        found.append(contents(folder))
    assert "report/manifest.json" in found[0]
    assert b"Checkpoint(" in found[0]["effects.0"]
    assert found[0] == found[1]


def _leave_evidence() -> None:
    """In this folder: a simulated log, its effects, what was published of it, and the report of its audit."""
    archived = Archived(Path("archives"))
    assert archived.audit(report="report", created="2026-01-01T00:00:00Z").exit_code == 0
    for partition, log in archived.made.logs.items():
        state = PartitionState(mutations.SOURCE, partition, mutations.RULES)
        effects = state.apply([item for item in log if isinstance(item, ArchivedRecord)])
        effects += state.checkpoint(state.next_offset)
        Path(f"effects.{partition}").write_text("\n".join(map(repr, effects)))


if __name__ == "__main__":
    _leave_evidence()
    sys.stdout.write(f"{compiled_wheel.ROOT}\n")
