"""What a worker's clients are given of its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processor.config.loading import load
from processor.errors import ConfigError
from processor.kafka.client_config import Connection
from processor.serve import clients


@pytest.mark.parametrize(
    ("toml", "of_partition"),
    [
        ("", 2 << 20),
        ("[source]\nfetch_max_bytes = 1048576", 1 << 20),
        ("[source]\nfetch_max_bytes = 8388608\npartition_fetch_bytes = 4194304", 4 << 20),
    ],
)
def test_a_fetch_from_a_partition_is_within_one_from_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, of_partition: int
) -> None:
    path = tmp_path / "processor.toml"
    path.write_text(toml)
    given: dict[str, Any] = {}
    monkeypatch.setattr(clients, "Consumer", lambda *_args, **told: given.update(told))
    settings = load(path, {})
    clients.build_consumer(settings, Connection("127.0.0.1:9092"), client_id="w", listener=None)  # type: ignore[arg-type]
    assert given["partition_fetch_bytes"] == of_partition


@pytest.mark.parametrize("port", ["\u00b2", "\u0661", "0", "65536", "9" * 5000, "", "-1"])
def test_a_port_is_a_number_of_ascii(port: str) -> None:
    """What `str.isdigit` takes for a digit, `int` need not: `RunPublisher` ended with a bare `ValueError`."""
    with pytest.raises(ConfigError, match="bootstrap_servers: not an address"):
        Connection.build(f"broker:{port}")
