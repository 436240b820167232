"""What each peer runs in, made on demand under build/bench/peers: nothing of it touches our own environment.

Python peers get a virtual environment with locked versions (requirements/*.txt); Kafka Streams is built by Maven.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
BUILD: Final = ROOT / "build" / "bench" / "peers"

_INSTALL_S: Final = 1_200.0
_ASK_S: Final = 30.0


class Unavailable(Exception):
    """This peer cannot run here, and why; the others can."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment of a name in requirements/. `oldest`: the first Python its library runs on."""

    name: str
    oldest: tuple[int, int] = (3, 11)

    def obtain(self, progress: Callable[[str], None]) -> Path:
        """Its interpreter; made first if it is not there as locked.

        Raises:
            Unavailable: no such Python here, or the packages cannot be installed.
        """
        locked = HERE / "requirements" / f"{self.name}.txt"
        python = interpreter(self.oldest)
        home, stamp = BUILD / self.name, _digest([locked], str(python))
        own = home / "bin" / "python"
        if not _is_made(home, stamp):
            progress(f"{self.name}: installing {versions(self.name)[0]} into {home.relative_to(ROOT)}")
            shutil.rmtree(home, ignore_errors=True)
            _done(self.name, [python, "-m", "venv", home])
            install: list[str | Path] = [
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
                locked,
            ]
            _done(self.name, [own, "-m", "pip", *install])
            _made(home, stamp)
        return own

    def command(self, program: str, progress: Callable[[str], None]) -> list[str]:
        return [str(self.obtain(progress)), "-m", f"tests.bench.peers.programs.{program}"]


@dataclass(frozen=True, slots=True)
class MavenProject:
    """The Java peer. It runs on the `java` of the path or of JAVA_HOME, as Maven does."""

    name: str = "kstreams"

    def obtain(self, progress: Callable[[str], None]) -> Path:
        """The directory of its jar, and of those it needs in `lib`.

        Raises:
            Unavailable: no Maven, no JDK, or it does not build.
        """
        for needed in ("mvn", "java", "javac"):
            if _tool(needed) is None:
                raise Unavailable(
                    f"{self.name}: no `{needed}` on the path or in JAVA_HOME: Maven and a JDK 17 build it"
                )
        project = HERE / self.name
        home, stamp = BUILD / self.name, _digest(sorted(p for p in project.rglob("*") if p.is_file()))
        if not _is_made(home, stamp):
            progress(f"{self.name}: building into {home.relative_to(ROOT)}")
            shutil.rmtree(home, ignore_errors=True)
            quiet: list[str | Path] = ["--quiet", "--batch-mode", "--file", project / "pom.xml"]
            _done(self.name, ["mvn", *quiet, f"-Dbench.directory={home}", "package"])
            _made(home, stamp)
        return home

    def command(self, program: str, progress: Callable[[str], None]) -> list[str]:
        home = self.obtain(progress)
        classes = os.pathsep.join([str(home / "steps-1.jar"), str(home / "lib" / "*")])
        return [str(_tool("java")), "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp", classes, program]


Environment = PythonEnvironment | MavenProject


def versions(name: str) -> list[str]:
    """The libraries that were chosen for an environment, the peer's own first: `quixstreams==3.28.1`."""
    if name == MavenProject().name:
        pom = (HERE / name / "pom.xml").read_text("utf-8")
        return [f"{a}=={v}" for a, v in re.findall(r"<artifactId>(kafka-streams)</artifactId><version>(.+?)<", pom)]
    return (HERE / "requirements" / f"{name}.in").read_text("utf-8").split()


# --- interpreters and tools ----------------------------------------------------------------------------------------


def interpreter(oldest: tuple[int, int]) -> Path:
    """Ours if it is new enough, as this is what our own worker runs on; else the oldest that is.

    Raises:
        Unavailable: there is none on the path or among pyenv's.
    """
    if sys.version_info[:2] >= oldest:
        return Path(sys.executable)
    minors = range(oldest[1], oldest[1] + 4)
    names = [f"python3.{minor}" for minor in minors]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    candidates = [Path(found) for name in names if (found := shutil.which(name))]
    candidates += [p for name in names for p in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in candidates:
        if _runs(candidate):
            return candidate
    raise Unavailable(f"no Python {oldest[0]}.{oldest[1]} or newer on the path (looked for {', '.join(names)})")


def _runs(python: Path) -> bool:
    """A name on the path may be a shim of a version that is not there."""
    return subprocess.run([python, "-c", ""], capture_output=True, timeout=_ASK_S).returncode == 0


def _tool(name: str) -> str | None:
    home = os.environ.get("JAVA_HOME")
    return (home and shutil.which(name, path=str(Path(home, "bin")))) or shutil.which(name)


# --- made, and still as it should be -------------------------------------------------------------------------------


def _digest(files: Iterable[Path], *more: str) -> str:
    digest = hashlib.sha256("\n".join(more).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _is_made(home: Path, stamp: str) -> bool:
    made = home / "made"
    return made.exists() and made.read_text() == stamp


def _made(home: Path, stamp: str) -> None:
    """Last of all: what was interrupted is made anew."""
    (home / "made").write_text(stamp)


def _done(name: str, command: Sequence[str | Path]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"{name}: {exc}") from exc
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Unavailable(f"{name}: {Path(command[0]).name} ended with {done.returncode}: {' / '.join(last)}")
