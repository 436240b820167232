"""`replay --check`: what it says of a report that somebody else has made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processor.audit.replay import outcome
from processor.audit.report import manifest as manifests
from processor.audit.report.manifest import NAME, PAGE
from processor.audit.report.tables import digest_of
from processor.cli import main as cli
from tests.shell.reports import PROGRAM, make


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(outcome, "program", lambda: PROGRAM)
    make(tmp_path / "report")
    return tmp_path / "report"


def sealed_anew(folder: Path, **about: str) -> None:
    """All digests as the folder is now."""
    plain = json.loads((folder / NAME).read_text())
    plain["about"] |= about
    plain["files"] = {
        name: {"rows": told["rows"], "bytes": found.bytes, "sha256": found.sha256}
        for name, told in plain["files"].items()
        if (folder / name).exists() and (found := digest_of(folder / name))
    }
    (folder / NAME).write_text(json.dumps(plain))
    manifests.write(folder, manifests.read(folder).sealed())


def checked(folder: Path) -> int:
    return cli._run(["replay", "--check", str(folder)])


def test_a_page_that_another_version_drew_is_said_not_to_be_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who changes a page can name another version, so that it is not drawn anew."""
    assert checked(folder) == 0
    assert PAGE not in capsys.readouterr().out
    (folder / PAGE).write_text("<h1>Proven</h1>")
    sealed_anew(folder)
    assert checked(folder) == 65
    sealed_anew(folder, program="run-steps 9.9.9")
    capsys.readouterr()
    assert checked(folder) == 0
    assert f"{PAGE}: not compared with the tables" in (told := capsys.readouterr().out)
    assert "run-steps 9.9.9" in told


@pytest.mark.parametrize("program", [PROGRAM, "run-steps 9.9.9"])
def test_a_report_without_its_page_is_not_whole(folder: Path, capsys: pytest.CaptureFixture[str], program: str) -> None:
    (folder / PAGE).unlink()
    sealed_anew(folder, program=program)
    assert checked(folder) == 65
    assert f"{PAGE}: missing" in capsys.readouterr().err
