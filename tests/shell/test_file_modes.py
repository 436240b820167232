"""What the program writes may be read by its own user alone: archives and reports hold prompts."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.faults.service import toml
from tests.shell import mutations
from tests.shell.test_replay import Archived


def test_archive_and_report_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask of the caller allows, in the processes of --workers, too."""
    archived = Archived(tmp_path)
    rules = mutations.RULES
    config = tmp_path / "settings.toml"
    output = {"dead_letter": mutations.DEAD, "max_record_bytes": rules.max_record_bytes, **mutations.OUTCOMES}
    steps = {"max_step_bytes": rules.max_step_bytes}
    config.write_text(toml({"source": {"topic": mutations.SOURCE}, "output": output, "steps": steps}))
    command = [sys.executable, "-m", "processor", "replay", "--config", str(config), "--workers", "2"]
    command += ["--archive", str(archived.source), "--published", str(archived.out)]
    written = {name: tmp_path / name for name in ("report", "record", "work")}
    for name, folder in written.items():
        command += [f"--{name}", str(folder)]
    done = subprocess.run(command, umask=0o022, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in written.values():
        found = [folder, *folder.rglob("*")]
        assert any(path.is_file() for path in found) or folder.name == "work"
        for path in found:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_stricter_umask_is_kept(tmp_path: Path) -> None:
    """The program takes rights away and gives none."""
    out = tmp_path / "runs.jsonl"
    command = [sys.executable, "-m", "processor", "simulate", "--runs", "1", "--out", str(out)]
    subprocess.run(command, umask=0o277, check=True, capture_output=True, timeout=120, cwd=os.getcwd())
    assert stat.S_IMODE(out.stat().st_mode) == 0o400
