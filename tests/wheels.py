"""Check the compiled wheels of a folder: `python -m tests.wheels dist` (`make wheels-check`).

Each is installed alone in an empty environment of the Python that it is for, with the libraries that its metadata asks
for in the locked versions. There the program must say that its core is compiled. Then the tests of the core run on it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.compiled_wheel import ROOT

_TAG: Final = re.compile(r"-cp3(\d+)-cp3\d+-(manylinux\w[\w.]*)\.whl$")
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+==[^\s;\\]+(?:\s*;[^\\]*)?)", re.MULTILINE)
EXAMPLES: Final = {"RUN_STEPS_EXAMPLES": "5"}
"""Of each property: that the properties hold is shown elsewhere."""


_TARGETS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
MODULES: Final[list[str]] = _TARGETS["wheel"]["hooks"]["custom"]["modules"]
"""Paths of what a compiled wheel has compiled."""


LONG: Final = re.findall(r"^LONG := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
"""The test files of the core that `make check` leaves out."""


class WheelError(Exception):
    """A wheel is not what it should be; the text says which and why."""


def check(built: Path, python: str, room: Path, *, is_quick: bool = False) -> str:
    """Install a wheel, or a source archive, in an empty environment in `room`, ask it, and run the core's tests on it.

    Args:
        is_quick: run the tests that `make check` runs, and not those that live through whole logs again and again.

    Returns:
        What its tests said last.

    Raises:
        WheelError: it does not install, is not compiled, or fails a test.
    """
    environment = room / "environment"
    _run([python, "-m", "venv", str(environment)], room)
    inside = str(environment / "bin" / "python")
    pins = room / "pins.txt"
    pins.write_text("\n".join(_PIN.findall((ROOT / "requirements.lock").read_text())))
    install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, "--constraint", str(pins), str(built)], room)
    said = _run([str(environment / "bin" / "run-steps"), "--version"], room)
    if "core: compiled" not in said:
        raise WheelError(f"{built.name}: {said}")
    _run([str(environment / "bin" / "run-steps"), "check-config"], room)
    # What the tests do not import, most of it, need not be compiled to bytecode.
    _run([*install, "--no-compile", "--require-hashes", "-r", str(ROOT / "requirements.lock")], room)
    tests = room / "tests-room"
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, tests / name)
    shutil.copy(ROOT / "pyproject.toml", tests)
    names = [path.removesuffix(".py").replace("/", ".") for path in MODULES]
    code = f"import importlib\nfor n in {names}: assert importlib.import_module(n).__file__.endswith('.so'), n"
    _run([inside, "-c", code], tests)
    left_out = [f"--ignore=tests/core/test_{name}.py" for name in LONG] if is_quick else []
    run = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core", *left_out]
    return _run(run, tests).splitlines()[-1]


def interpreter_of(wheel: Path, pythons: Iterable[str]) -> str | None:
    """The first of these interpreters that the wheel's tag names; None: the wheel is of Python alone."""
    tag = _TAG.search(wheel.name)
    if tag is None:
        if wheel.name.endswith("-py3-none-any.whl"):
            return None
        raise WheelError(f"{wheel.name}: an index takes a manylinux tag alone")
    for python in pythons:
        asked = [python, "-c", "import sys; print(sys.version_info.minor)"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == tag[1]:
            return python
    raise WheelError(f"{wheel.name}: no Python 3.{tag[1]} among {', '.join(pythons)}")


def main(folder: Path, pythons: Sequence[str]) -> None:
    """Check every wheel of the folder; the folder must have one for each of the interpreters.

    Raises:
        WheelError: a wheel is wrong, or missing.
    """
    checked = []
    for wheel in sorted(folder.glob("run_steps-*.whl")):
        python = interpreter_of(wheel, pythons)
        if python is not None:
            with TemporaryDirectory() as room:
                sys.stdout.write(f"{wheel.name}: {check(wheel, python, Path(room))}\n")
            checked.append(python)
    if missing := set(pythons) - set(checked):
        raise WheelError(f"{folder}: no wheel for {', '.join(sorted(missing))}")


def _run(command: Sequence[str], cwd: Path) -> str:
    kept = {name: content for name, content in os.environ.items() if name != "PYTHONPATH"}
    environ = EXAMPLES | kept if "pytest" in command else kept  # to the program it would be an unknown setting
    done = subprocess.run(command, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise WheelError(f"{' '.join(command)[:300]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).resolve(), os.environ.get("PYTHONS", "python3.11 python3.12 python3.13").split())
    except WheelError as error:
        sys.exit(f"tests.wheels: {error}")
