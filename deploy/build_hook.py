"""A build hook: wheel and source archive name their commit, and with HATCH_BUILD_HOOKS_ENABLE=1 the wheel is compiled.

The compiled modules go into the wheel with their source beside them (docs/decisions/0006). mypyc works on a copy: what
it leaves beside the source, an editable install would import from then on, whatever became of the source.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILE = "HATCH_BUILD_HOOKS_ENABLE"
COMMIT = "BUILD_COMMIT"
"""Names the commit where the tree is no git repository, as in the build of the image."""
TOOLS = ["msgspec>=0.22", "mypy>=2.4", "setuptools"]


class WheelHook(BuildHookInterface[BuilderConfig]):
    """`modules` (pyproject.toml): paths of what is compiled, relative to the project."""

    _room: TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What a build in isolation has to install: nothing, unless it compiles."""
        return TOOLS if _compiles() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the commit, and compile; an editable install gets neither.

        Raises:
            RuntimeError: mypyc or the C compiler failed; what they said is in it.
        """
        if version == "editable":
            return
        self._room = TemporaryDirectory()
        room = Path(self._room.name)
        told = runpy.run_path(str(Path(self.root, "processor", "commit.py")))
        commit = Path(self.root, "processor", told["FILE"])
        if not commit.exists():  # a source archive has it
            commit = room / told["FILE"]
            commit.write_text((os.environ.get(COMMIT) or told["of_tree"](Path(self.root))) + "\n")
        build_data["force_include"][str(commit)] = f"processor/{told['FILE']}"
        if _compiles() and self.target_name == "wheel":
            self._compile(room, build_data)

    def _compile(self, room: Path, build_data: dict[str, Any]) -> None:
        shutil.copytree(Path(self.root, "processor"), room / "processor")
        command = [sys.executable, "-m", "mypyc", "--strict", *self.config["modules"]]
        done = subprocess.run(command, cwd=room, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"mypyc ended with {done.returncode}:\n{done.stdout}")
        compiled = "*" + sysconfig.get_config_var("EXT_SUFFIX")
        for path in (*room.glob(compiled), *room.joinpath("processor").rglob(compiled)):
            build_data["force_include"][str(path)] = str(path.relative_to(room))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written: the copy may go."""
        if self._room is not None:
            self._room.cleanup()


def _compiles() -> bool:
    return os.environ.get(COMPILE) in ("1", "true")
