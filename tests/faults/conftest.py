"""What tests under faults share: figures that they report, and brokers behind a proxy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from processor.errors import PartsUnavailable
from tests.conftest import FIGURES
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Report a line; all of them are shown after the run, also where the test ran in another process."""
    return lambda line: request.node.user_properties.append((FIGURES, line))


class Behind(NamedTuple):
    """A cluster that workers reach through a proxy."""

    cluster: Cluster
    proxy: Proxy


def _cannot(error: PartsUnavailable) -> NoReturn:
    reason = f"the embedded Apache Kafka cannot be had here: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def behind_proxy(home: Path, nodes: int = 1, transaction_version: int | None = None) -> Iterator[Behind]:
    """Start one; where its parts cannot be had the test is skipped, on CI (env CI=true) failed."""
    with Proxy() as proxy:
        try:
            cluster = Cluster(home / "kafka", nodes, proxy=proxy, transaction_version=transaction_version)
        except PartsUnavailable as error:
            _cannot(error)
        with cluster:
            yield Behind(cluster, proxy)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """One broker of the module's own behind a proxy."""
    yield from behind_proxy(tmp_path_factory.mktemp("behind"))


@pytest.fixture(scope="module")
def behind_classic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """The same with transaction.version 1: transactions as they were before Kafka 4.0."""
    yield from behind_proxy(tmp_path_factory.mktemp("classic"), transaction_version=1)
