"""`make compat`: other brokers and other producers' libraries, tried; the result is docs/compatibility.md.

python -m tests.compat                      all of it, about an hour
python -m tests.compat --only 3.9.1,sarama  some; what was found before of the others stays in the page
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Final

from processor.broker import Broker, probe
from tests.compat import page
from tests.compat.clients import CLIENTS, KFAKE, KFAKE_VERSION
from tests.compat.lacking import LACKING, refused
from tests.compat.rounds import exactly_once, produced
from tests.compat.versions import Served
from tests.faults.lab import Tally
from tests.faults.proxy import HOST

KAFKAS: Final = (
    "2.5.1", "2.6.3", "2.7.2", "2.8.2", "3.0.2", "3.3.2", "3.6.2", "3.7.2", "3.9.1", "4.0.0", "4.1.1", "4.2.0",
    "4.3.0", "4.4.0",
)  # fmt: skip
_RESULTS: Final = Path(__file__).with_name("results.json")


def _kafka(version: str, home: Path, tally: Tally, turns: int) -> dict[str, Any]:
    with Served(version, home / "kafka") as broker:

        def kill() -> None:
            broker.kill()
            broker.launch()

        exactly_once(broker, home / "fleet", tally, turns=turns, kill_broker=kill, has_group_log=True)
        return {"kind": "broker", "name": "Apache Kafka", "version": version, "kills": "worker, freeze, broker"}


class _Kfake:
    proxy = None
    replicas = 1

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        port = next(probe.free_ports())
        self.bootstrap = self.client_bootstrap = f"{HOST}:{port}"
        with (home / "kfake.log").open("wb") as log:
            self.process = subprocess.Popen([*KFAKE(), str(port)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not probe.serving_cluster(port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"kfake does not serve: {(home / 'kfake.log').read_text()[-500:]}")
            time.sleep(0.1)


def _kfake(home: Path, tally: Tally, turns: int) -> dict[str, Any]:
    broker = _Kfake(home / "kfake")
    try:
        exactly_once(broker, home / "fleet", tally, turns=turns, kill_broker=None, has_group_log=False)
    finally:
        broker.process.kill()
        broker.process.wait(60)
    return {"kind": "broker", "name": "franz-go's kfake", "version": KFAKE_VERSION, "kills": "worker, freeze"}


def _client(name: str, home: Path, tally: Tally) -> dict[str, Any]:
    client = next(one for one in CLIENTS if one.name == name)
    with Broker.start() as broker:
        refused = produced(client, broker.bootstrap, home, tally)
    return {
        "kind": "client",
        "name": client.name,
        "version": client.version,
        "settings": client.settings,
        "codecs": list(client.codecs),
        "transactions": client.has_transactions,
        "refused": refused,
    }


def _tried(name: str, turns: int, home: Path, seed: int) -> dict[str, Any]:
    tally = Tally("compat", seed)
    began = time.monotonic()
    try:
        if name in KAFKAS:
            found = _kafka(name, home, tally, turns)
        elif name == "kfake":
            found = _kfake(home, tally, turns)
        elif name in LACKING:
            found = refused(name, home, tally)
        else:
            found = _client(name, home, tally)
    except Exception as error:
        traceback.print_exc()
        found = {"kind": "failed", "name": name, "version": ""}
        tally.problems.append(f"{type(error).__name__}: {str(error)[:300]}")
    return found | {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "faults": tally.faults,
        "records": tally.records,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "wrong": tally.wrong,
        "problems": tally.problems,
        "notes": tally.notes,
    }


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where all that was tried is right, else 1."""
    every = [*KAFKAS, "kfake", *LACKING, *(client.name for client in CLIENTS)]
    parser = argparse.ArgumentParser("python -m tests.compat")
    parser.add_argument("--only", help=f"of {', '.join(every)}, separated by commas; a beginning is enough")
    parser.add_argument("--turns", type=int, default=2, help="rounds of faults for each broker")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation and of which worker is hit")
    parser.add_argument("--home", type=Path, help="for logs; default: a temporary folder")
    given = parser.parse_args(arguments)
    asked = [one.strip() for one in given.only.split(",")] if given.only else [""]
    chosen = [name for name in every if any(name.startswith(one) for one in asked)]
    home = given.home or Path(tempfile.mkdtemp(prefix="run-steps-compat-"))
    is_right = bool(chosen)
    for name in chosen:
        sys.stdout.write(f"{name}: logs in {home}\n")
        found = _tried(name, given.turns, home / name.replace("/", "-").replace(" ", "-"), given.seed)
        told = ("faults", "records", "lost", "doubled", "wrong", "problems", "notes", "seconds")
        sys.stdout.write(f"  {json.dumps({key: found[key] for key in told})}\n")
        sys.stdout.flush()
        is_right = is_right and not any(found[key] for key in ("lost", "doubled", "wrong", "problems"))
        results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
        results[name] = found
        _RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        page.write([results[one] for one in every if one in results])
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
