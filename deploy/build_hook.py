"""A build hook: wheel and source archive name their commit, and the wheel is compiled where that is asked for.

What HATCH_BUILD_HOOKS_ENABLE says decides (docs/decisions/0006): `1` compiles or fails; `0` compiles nothing; without
it a source tree gives the wheel of Python alone, and a source archive compiles if it can, and says in the package why
it could not.

The compiled modules go into the wheel with their source beside them (docs/decisions/0006). mypyc works on a copy: what
it leaves beside the source, an editable install would import from then on, whatever became of the source.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILE: Final = "HATCH_BUILD_HOOKS_ENABLE"
COMMIT: Final = "BUILD_COMMIT"
"""Names the commit where the tree is no git repository, as in the build of the image."""
TOOLS: Final = ["msgspec>=0.22", "mypy>=2.4", "setuptools"]
_OF_ARCHIVE: Final = "PKG-INFO"
"""At the root of a source archive, and of no source tree."""
_WORDS: Final = 200
_DIRECT_CALLS: Final = "-fno-semantic-interposition -fvisibility=hidden"


class CompileError(Exception):
    """The core could not be compiled; the text is the reason, and what the tools said."""


class WheelHook(BuildHookInterface[BuilderConfig]):
    """`modules` (pyproject.toml): paths of what is compiled, relative to the project."""

    _room: TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What a build in isolation has to install: nothing, unless it compiles."""
        return TOOLS if self._must_compile() or (self._may_compile() and not _no_compiler()) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the commit, and compile; an editable install gets neither.

        Raises:
            CompileError: HATCH_BUILD_HOOKS_ENABLE demands the compiled core, and mypyc or the C compiler failed.
        """
        if version == "editable":
            return
        self._room = TemporaryDirectory()
        room = Path(self._room.name)
        self._write_commit(room, build_data)
        if self.target_name != "wheel":
            return
        if self._must_compile():
            self._compile(room, build_data)
        elif self._may_compile():
            try:
                self._compile(room, build_data)
            except CompileError as why:
                self._say_not_compiled(room, build_data, str(why))

    def _must_compile(self) -> bool:
        return os.environ.get(COMPILE) in ("1", "true")

    def _may_compile(self) -> bool:
        return not os.environ.get(COMPILE) and Path(self.root, _OF_ARCHIVE).exists()

    def _write_commit(self, room: Path, build_data: dict[str, Any]) -> None:
        told = runpy.run_path(str(Path(self.root, "processor", "commit.py")))
        commit = Path(self.root, "processor", told["FILE"])
        if not commit.exists():  # a source archive has it
            commit = room / told["FILE"]
            commit.write_text((os.environ.get(COMMIT) or told["of_tree"](Path(self.root))) + "\n")
        build_data["force_include"][str(commit)] = f"processor/{told['FILE']}"

    def _compile(self, room: Path, build_data: dict[str, Any]) -> None:
        if lacking := _no_compiler():
            raise CompileError(lacking)
        shutil.copytree(Path(self.root, "processor"), room / "processor")
        # Silent: what the modules import is not compiled, and its libraries are not in an isolated build. Without it
        # mypyc counts errors there where PYTHONPATH is set, as it is in such a build, and not where it is not.
        checks = ("--strict", "--follow-imports=silent")
        command = [sys.executable, "-m", "mypyc", *checks, *self.config["modules"]]
        done = subprocess.run(
            command, cwd=room, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise CompileError(f"{_first_error(done.stdout)}\nmypyc ended with {done.returncode}:\n{done.stdout}")
        compiled = "*" + sysconfig.get_config_var("EXT_SUFFIX")
        for path in (*room.glob(compiled), *room.joinpath("processor").rglob(compiled)):
            build_data["force_include"][str(path)] = str(path.relative_to(room))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def _say_not_compiled(self, room: Path, build_data: dict[str, Any], why: str) -> None:
        """Tell it in the build's output, which pip shows with -v alone, and in a file that the program reads."""
        self.app.display_warning(f"run-steps: the core is not compiled, so this wheel is of Python alone: {why}")
        told = runpy.run_path(str(Path(self.root, "processor", "compilation.py")))
        note = room / told["FILE"]
        note.write_text(why.partition("\n")[0] + "\n", "utf-8")
        build_data["force_include"][str(note)] = f"processor/{told['FILE']}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written: the copy may go."""
        if self._room is not None:
            self._room.cleanup()


def _environment() -> dict[str, str]:
    """For mypyc: without these flags each call among compiled functions goes through a table of the linker's."""
    if sys.platform == "win32":
        return dict(os.environ)
    own = os.environ.get("CFLAGS", "")  # in place of Python's flags, without which the core would be slow and unsafe
    return os.environ | {"CFLAGS": f"{sysconfig.get_config_var('CFLAGS') or ''} {own} {_DIRECT_CALLS}"}


def _no_compiler() -> str:
    """Why nothing can be compiled here; empty if a C compiler is there."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is not CPython"
    compiler = os.environ.get("CC") or str(sysconfig.get_config_var("CC"))
    words = shlex.split(compiler)
    if words and shutil.which(words[0]):
        return ""
    return f"no C compiler ({compiler})"


def _first_error(said: str) -> str:
    """The line of the tools' output that names the cause: the first error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = next((line for line in lines if "error:" in line or "No module named" in line), lines[-1] if lines else "")
    return f"the C compiler or mypyc failed: {found[:_WORDS]}"
