"""On the build server a test that did not run is a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("reason", "code"), [("../shared/fixtures is not here", 0), ("no network", 1), ("needs a broker", 1)]
)
def test_only_the_recordings_may_be_missing(reason: str, code: int, tmp_path: Path) -> None:
    """Whether a test or a whole module skips; and the reason is told."""
    (tmp_path / "test_one.py").write_text(f"import pytest\ndef test_it(): pytest.skip({reason!r})\n")
    (tmp_path / "test_two.py").write_text(f"import pytest\npytest.skip({reason!r}, allow_module_level=True)\n")
    (tmp_path / "test_three.py").write_text("def test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", "-c", tmp_path / "pytest.ini", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout
    assert ("skips are failures here" in done.stdout) == bool(code)
    assert done.stdout.count(f"Skipped: {reason}") == 2 * code
    assert "1 passed, 2 skipped" in done.stdout.splitlines()[-1]
