"""Figures that tests under faults report, whether they pass or fail: what was kept up, and how long things took."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_FIGURES: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Report a line; all of them are shown after the run."""
    kept = request.config.stash.setdefault(_FIGURES, [])
    name = request.node.name
    return lambda line: kept.append(f"{name}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    kept = config.stash.get(_FIGURES, [])
    if kept:
        terminalreporter.section("figures")
        for line in kept:
            terminalreporter.write_line(line)
