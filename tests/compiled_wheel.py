"""The compiled wheel, built and laid open with the tests beside it, to be tested and measured."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[1]
EXTENSION: Final = str(sysconfig.get_config_var("EXT_SUFFIX"))
# In CFLAGS the levels would have no effect: mypyc's own stand behind them, and the last one counts.
SAME_CODE: Final = {"MYPYC_DEBUG_LEVEL": "0"}
"""Variables with which what is shipped is compiled, in less time: to the debugger alone it makes a difference."""
SOON: Final = SAME_CODE | {"MYPYC_OPT_LEVEL": "0"}
"""Variables with which the compiler takes a fraction of the time, where what matters is that it compiles and is right.

The assertions in the C code are compiled, too.
"""


def missing() -> str | None:
    """What is lacking to compile with and how to get it, if anything."""
    compiler = os.environ.get("CC") or str(sysconfig.get_config_var("CC"))
    if shutil.which(shlex.split(compiler)[0]):
        return None
    return f"no C compiler: {compiler} (Debian: apt-get install gcc libc6-dev)"


def wheel(into: Path, *, compiled: bool) -> Path:
    """Build the wheel with the build tools of this environment.

    Raises:
        RuntimeError: it could not be built; what the tools said is in it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into, ROOT],
        env=SAME_CODE
        | os.environ
        | {"HATCH_BUILD_HOOKS_ENABLE": "1" if compiled else "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout)
    (built,) = into.glob("*.whl")
    return built


def lay_open(room: Path, built: Path | None = None) -> None:
    """Put the compiled wheel unpacked into `room`, anew, with the tests beside it. It is built if it is not given.

    Raises:
        RuntimeError: it could not be built.
    """
    shutil.rmtree(room, ignore_errors=True)
    with TemporaryDirectory() as folder, zipfile.ZipFile(built or wheel(Path(folder), compiled=True)) as packed:
        packed.extractall(room)
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, room / name)
    shutil.copy(ROOT / "pyproject.toml", room)
