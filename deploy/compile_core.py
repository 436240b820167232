"""A build hook: the core's hot modules go into the wheel compiled, their source beside them (docs/decisions/0006).

Off unless HATCH_BUILD_HOOKS_ENABLE=1. mypyc works on a copy: what it leaves beside the source, an editable install
would import from then on, whatever became of the source.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileCore(BuildHookInterface[BuilderConfig]):
    """`modules` (pyproject.toml): paths of what is compiled, relative to the project."""

    _copy: TemporaryDirectory[str]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; an editable install stays Python.

        Raises:
            RuntimeError: mypyc or the C compiler failed; what they said is in it.
        """
        if version == "editable":
            return
        self._copy = TemporaryDirectory()
        room = Path(self._copy.name)
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
        if version != "editable":
            self._copy.cleanup()
