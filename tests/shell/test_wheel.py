"""The wheel of Python alone and the source archive name the commit that they were built from."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from processor.commit import FILE, UNKNOWN, of_tree
from tests import compiled_wheel
from tests.source_archive import unpack_archive


def test_wheel_and_source_archive_name_the_commit(tmp_path: Path) -> None:
    """Of the tree, and the archive's own where a wheel is made of that; nothing is left in the tree."""
    commit = of_tree(compiled_wheel.ROOT)
    wheel = compiled_wheel.wheel(tmp_path, compiled=False)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read(f"processor/{FILE}").decode().strip() == commit
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path / "sdist")]
    subprocess.run(command, cwd=compiled_wheel.ROOT, check=True, capture_output=True)
    (archive,) = (tmp_path / "sdist").iterdir()
    with tarfile.open(archive) as files:
        unpack_archive(files, tmp_path / "source")
    (source,) = (tmp_path / "source").iterdir()
    assert (source / "processor" / FILE).read_text().strip() == commit
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "again")]
    # That it compiles where it can is tested in `test_source_archive`; it takes minutes.
    not_compiled = os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "0"}
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=not_compiled)
    (again,) = (tmp_path / "again").iterdir()
    with zipfile.ZipFile(again) as packed:
        assert packed.read(f"processor/{FILE}").decode().strip() == commit
    assert not (compiled_wheel.ROOT / "processor" / FILE).exists()


def test_a_tree_that_is_no_repository_has_no_commit(tmp_path: Path) -> None:
    assert of_tree(tmp_path) == UNKNOWN
