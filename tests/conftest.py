"""What every test may use. Nothing here starts a broker unless a test asks for one."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from processor.broker import Broker
from processor.errors import PartsUnavailable
from tests.examples import EXAMPLES
from tests.kafka_tools import Names

# Property tests try few examples by default, and as many as RUN_STEPS_EXAMPLES says (tests/examples.py).
settings.register_profile(
    "run-steps",
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("run-steps")

_ROOT = Path(__file__).parent
FIGURES = "figures"
"""The user property under which a test reports a line."""
_MARKERS = {"broker": (pytest.mark.broker,), "faults": (pytest.mark.broker, pytest.mark.faults)}


_LONGEST_FIRST = (
    "shell/test_compiled_wheel.py",
    "shell/test_source_archive.py",
    "test_docs.py",
    "faults/test_positions.py",
    "faults/",
    "broker/test_permissions.py",
    "broker/",
    "browser/",
    "shell/",
    "",
)
"""Beginnings of paths: in `make test` files go in this order to the process that is free, and none ends long alone.

What compiles comes first: it needs no idle machine, as tests with deadlines do, and the types are checked meanwhile.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What lives in these directories carries their markers, without a line in each file."""
    for item in items:
        for directory, markers in _MARKERS.items():
            if _ROOT / directory in item.path.parents:
                for marker in markers:
                    item.add_marker(marker)
    if hasattr(config, "workerinput"):  # one of several processes of pytest-xdist
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    path = item.path.relative_to(_ROOT).as_posix()
    return next(turn for turn, beginning in enumerate(_LONGEST_FIRST) if path.startswith(beginning))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the lines that tests gave to `figures` (tests/faults/conftest.py)."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, line in report.user_properties
        if name == FIGURES
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


def started_or_skipped(**options: Any) -> Broker:
    """Start an embedded broker; where its parts cannot be had the test is skipped, on CI (env CI=true) failed.

    The first stop on a machine writes what makes later starts quick, which takes long: that is done at once, or each
    broker that starts before the first one stops would be slow to start and to stop.
    """
    try:
        running = Broker.start(**options)
        if running._training is None:
            return running
        running.stop()
        return Broker.start(**options)
    except PartsUnavailable as exc:
        reason = f"the embedded Apache Kafka cannot be had here: {exc}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One light broker for the whole session; tests keep apart by `names`. Never stop or kill this one."""
    with started_or_skipped() as running:
        yield running


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """A topic prefix and a group id of this test alone."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    prefix = f"{slug}-{uuid.uuid4().hex[:8]}"
    return Names(prefix, f"{prefix}.group")


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.Item) and pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_loop_watch")


@pytest_asyncio.fixture
async def _loop_watch() -> AsyncIterator[None]:
    """Fails a test that leaves tasks running, or whose loop swallowed an exception."""
    loop = asyncio.get_running_loop()
    swallowed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: swallowed.append(context))
    before = asyncio.all_tasks()
    gc.freeze()  # what was there before is not looked through: that took a second after each test
    yield
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    gc.collect()  # an exception that no task was asked for is reported when the task is collected
    gc.unfreeze()
    loop.set_exception_handler(None)
    assert not left, f"tasks left running: {sorted(task.get_name() for task in left)}: {left}"
    assert not swallowed, (
        f"the loop swallowed: {[context.get('exception') or context['message'] for context in swallowed]}"
    )
