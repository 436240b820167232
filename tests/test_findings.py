"""The form of findings/: each script is executable, says its versions, is in the list. None of them is run here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[1] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_finding_is_executable_and_says_versions_and_expectation(script: Path) -> None:
    text = script.read_text()
    assert os.access(script, os.X_OK), f"{script.name}: not executable: chmod +x"
    header = text.split("\n\n", 1)[0]
    for word in ("surprise", "versions", "expected", "does"):
        assert re.search(rf"^# {word}: \S", header, re.MULTILINE), f"{script.name}: header: no line `# {word}: ...`"
    assert re.search(r"\d+\.\d+", re.search(r"^# versions: (.*)", header, re.MULTILINE)[1])  # type: ignore[index]
    assert "verdict " in text, f"{script.name}: never gives a verdict"


def test_the_list_has_every_script_and_no_other() -> None:
    listed = re.findall(r"^\| `(\S+\.sh)` \|", (FINDINGS / "README.md").read_text(), re.MULTILINE)
    assert listed == [script.name for script in SCRIPTS]
