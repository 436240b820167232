"""The demo as a newcomer runs it: through the command line, as a process of its own, to its last line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processor.audit.replay.outcome import program
from processor.audit.report.folder import check
from processor.audit.report.manifest import Outcome
from processor.demo import RESPONSES_SHARE
from processor.demo.recordings import story_of
from processor.publish.command import response_sample_files, sample_files
from processor.simulate import Parameters, Simulation

RUNS = 60
DEADLINE_S = 180.0

pytestmark = [
    pytest.mark.usefixtures("broker"),  # its parts are here then, or these tests are skipped by the same rule
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find what is left behind"),
]


class Showing:
    """A demo under way. All that it starts and writes is marked by a temporary directory of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.output = home.with_suffix(".out")
        env = {name: value for name, value in os.environ.items() if not name.startswith("RUN_STEPS_")}
        cache = {name: value for name, value in os.environ.items() if name == "RUN_STEPS_CACHE"}
        # Settings of the user's must not reach the demo's workers.
        misleading = {"RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "RUN_STEPS_STEPS__GRACE_S": "1"}
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "processor", "demo", "--runs", str(RUNS), *options],
                env=env | cache | misleading | {"TMPDIR": str(home)},
                cwd=home.parent,  # in the project it would write its report there
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"no {words!r} after {DEADLINE_S} s:\n{self.text}"
            time.sleep(0.05)

    def ends(self) -> int:
        return self.process.wait(DEADLINE_S)

    def processes(self) -> list[str]:
        """The command lines of all that it started and that is still there."""
        mark, found = f"TMPDIR={self.home}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:  # gone meanwhile, or somebody else's
                continue
        return found

    def report(self) -> Path:
        """The folder of the page that it names."""
        found = re.search(r"^ +(\S+)/report\.html$", self.text, re.MULTILINE)
        assert found, self.text
        return Path(found[1])

    def assert_nothing_is_left(self, *, but: Path | None = None) -> None:
        deadline = time.monotonic() + 5.0
        while left := self.processes():  # the broker's watchdog is a shell that ends a moment later
            assert time.monotonic() < deadline, left
            time.sleep(0.02)
        assert [path for path in self.home.iterdir() if path != but] == []


@pytest.fixture
def showing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Showing]]:
    """Begins demos. Their temporary directory has a short path: that of a socket in it may have 107 characters."""
    begun: list[Showing] = []

    def begin(*options: str) -> Showing:
        home = tmp_path_factory.mktemp("demo") / "tmp"
        home.mkdir()
        begun.append(Showing(home, *options))
        return begun[-1]

    yield begin
    for one in begun:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(DEADLINE_S)


def test_the_demo_comes_to_a_good_end(showing: Callable[..., Showing]) -> None:
    demo = showing()
    assert demo.ends() == 0, demo.text
    said = demo.text
    assert re.findall(r"^(\d)/6  ", said, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert re.search(r"worker [AB] killed \(SIGKILL\) at record [\d,]+, after it had published [1-9]", said)
    assert re.search(r"worker [AB] has all 6 partitions \d+\.\d s later", said)
    assert "worker C has joined" in said
    assert "  ✓  equal: nothing lost, nothing twice" in said.splitlines()
    assert re.search(r"^  ✓  proven, after \d+\.\d s$", said, re.MULTILINE)

    simulation = Simulation(Parameters(runs=RUNS, partitions=6, responses=RESPONSES_SHARE))
    records = sum(1 for _ in simulation)
    counts = simulation.expected.counts
    assert f"{records:,} records sent and done with" in said
    rows = {
        match[1]: (match[2], match[3], match[4])
        for match in re.finditer(r"^ +(\S.*?) +([\d,]+) +([\d,]+) +([\d,]+) *$", said, re.MULTILINE)
    }
    # processor/samples/README.md, and that of the Responses streams
    of_samples = {"completed": "27", "failed": "3", "cancelled": "1", "expired": "1"}
    for status, recorded in of_samples.items():
        simulated = f"{counts[f'published.{status}']:,}"
        assert rows[status] == (recorded, simulated, simulated)
    assert rows["of these: amendments"] == ("1", f"{counts['amended']}", f"{counts['amended']}")
    reasons = {name.partition(".")[2]: count for name, count in counts.items() if name.startswith("dead_letter.")}
    letters = f"{sum(reasons.values()):,}"
    assert rows["dead letters"] == ("0", letters, letters)
    assert {reason: rows[reason] for reason in reasons} == {r: ("0", f"{n}", f"{n}") for r, n in reasons.items()}
    stories = {story_of(path) for path in [*sample_files(), *response_sample_files()]}
    assert stories <= {line.split()[0] for line in said.splitlines() if line.strip()}

    told = check(demo.report(), program=program())
    assert told.problems == []
    assert told.manifest.verdict is Outcome.PROVEN
    steps = sum(int(published.replace(",", "")) for status in of_samples for published in rows[status][:2])
    assert told.manifest.counts == {"step": {"equal": steps}, "dead_letter": {"equal": sum(reasons.values())}}
    assert "ahead" not in said
    now_ms = time.time_ns() // 1_000_000
    assert all(0 < one.stream_time <= now_ms for one in told.manifest.ranges), "nothing is dated in the future"
    demo.assert_nothing_is_left(but=demo.report())


def test_kept_up_it_answers_until_it_is_interrupted(showing: Callable[..., Showing], tmp_path: Path) -> None:
    """With a recording of one's own instead of the samples: one that is cut off before its step ends."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    whole = next(path for path in sample_files() if path.name == "run_failed.sse").read_text()
    (folder / "whole.sse").write_text(whole)
    cut = whole.partition("event: thread.run.step.failed")[0]
    (folder / "cut.sse").write_text(re.sub(r"\b(run|step)_(\w)", r"\1_other\2", cut))
    demo = showing("--keep", "--recordings", str(folder))
    demo.wait_for("Ctrl-C ends it all")
    assert "nothing lost, nothing twice" in demo.text
    rows = [line.split(maxsplit=1) for line in demo.text.splitlines() if line.strip()]
    assert ["whole", "failed"] in [[word.strip() for word in row] for row in rows]
    assert ["cut", "still open"] in [[word.strip() for word in row] for row in rows]
    addresses = re.findall(r"worker [ABC]: (http://\S+?)/healthz", demo.text)
    assert len(addresses) == 2
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    open_steps = 0
    for address in addresses:
        with opener.open(f"{address}/readyz", timeout=30) as page:
            assert len(json.load(page)["assigned"]) == 3
        with opener.open(f"{address}/steps", timeout=30) as page:
            open_steps += len(json.load(page)["steps"])
    assert open_steps == 1, "the one that was cut off"
    demo.process.send_signal(signal.SIGINT)
    assert demo.ends() == 0, demo.text
    demo.assert_nothing_is_left(but=demo.report())


@pytest.mark.parametrize(
    ("words", "number"),
    [("it serves on", signal.SIGINT), ("killed (SIGKILL)", signal.SIGTERM), ("6/6  The audit", signal.SIGTERM)],
    ids=["workers starting", "one worker dead", "under audit"],
)
def test_interrupted_it_leaves_nothing_behind(
    showing: Callable[..., Showing], words: str, number: signal.Signals
) -> None:
    demo = showing()
    demo.wait_for(words)
    assert len(demo.processes()) > 1, "the demo and its broker at least"
    demo.process.send_signal(number)
    assert demo.ends() == 130, demo.text
    assert demo.text.splitlines()[-1] == "  ·  interrupted: ending the workers and the broker"
    demo.assert_nothing_is_left()


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", "demo", "--recordings", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 64
    assert "no .sse file" in done.stderr
