"""What the auditor's guide says to keep is enough: its commands archive the outputs and prove them without a broker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from processor.broker import Broker
from processor.config.settings import NOT_SETTINGS, PREFIX
from tests import kafka_tools as kt
from tests.broker.test_replay import WAIT_S, committed, play, published
from tests.faults.worker_fleet import Fleet, Topics, eventually
from tests.kafka_tools import Names

GUIDE: Final = Path(__file__).parents[2] / "docs" / "auditors-guide.md"


def toml(topics: Topics) -> str:
    tables: dict[str, str] = {}
    for name, value in topics.settings().items():
        section, key = name.split(".", 1)
        tables[section] = tables.get(section, "") + f'{key} = "{value}"\n'
    return "".join(f"[{section}]\n{lines}" for section, lines in tables.items())


def test_the_guides_commands_prove_what_was_published_without_a_broker(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    topics = Topics.create(broker.bootstrap, names, partitions=2)
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        _, total = play(topics, runs=20, seed=5)
        (worker,) = fleet.start()
        eventually("all of it is done", lambda: committed(topics) >= total, WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    (tmp_path / "processor.toml").write_text(toml(topics))
    (recipe,) = re.findall(r"```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    recipe = recipe.replace("run-steps.$topic", f"{names.prefix}.$topic").replace(" dead-letter;", " dead;")
    kept, _, offline = recipe.rpartition("run-steps replay --config processor.toml")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k in NOT_SETTINGS}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def run(script: str, bootstrap: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment | {f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": bootstrap},
            capture_output=True,
            text=True,
            timeout=300,
        )

    recorded = run(f"run-steps replay --config processor.toml --record source && {kept}", topics.bootstrap)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    proven = run(f"run-steps replay --config processor.toml{offline}", "127.0.0.1:1")
    dead = kt.read_topic(topics.bootstrap, topics.dead_letter)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert f"steps: {len(published(topics))} equal" in proven.stdout
    assert f"dead letters: {len(dead)} equal" in proven.stdout
