"""A broker that holds the worker's clients back: named, and units made small enough to be taken in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String

from processor.broker import Broker
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from tests.faults.service import Stage, created, ended
from tests.kafka_tools import Names

TEXT = String("utf-8")
ENTITY = Array(("type", TEXT), ("name", TEXT))


class AlterQuotasResponse(Response):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("entries", Array(("error_code", Int16), ("message", TEXT), ("entity", ENTITY))),
    )


class AlterQuotasRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    RESPONSE_TYPE = AlterQuotasResponse
    SCHEMA = Schema(
        ("entries", Array(("entity", ENTITY), ("ops", Array(("key", TEXT), ("value", Float64), ("remove", Boolean))))),
        ("validate_only", Boolean),
    )


class AlterQuotas(Request[AlterQuotasRequest]):  # type: ignore[misc]
    API_KEY = 49

    def __init__(self, client_id: str, key: str, value: float) -> None:
        self._entries = [([("client-id", client_id)], [(key, value, False)])]

    def build(self, request: type[Any]) -> Any:
        return request(self._entries, False)


async def test_units_are_halved_until_a_throttled_broker_takes_them(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    count, note = 16, "n" * 60_000
    for number in range(count):
        stage.say(created(f"step_{number}"), ended(f"step_{number}", note=f"{note}{number}"))
    async with Admin(Connection.build(broker.bootstrap)) as own:
        answer = await own.client()._send_request(AlterQuotas(names.prefix, "producer_byte_rate", 40_000.0))
        assert [row[0] for row in answer.entries] == [0]
    slow: dict[str, dict[str, object]] = {
        "kafka": {"client_id": names.prefix},
        "delivery": {"commit_timeout_s": 3.0, "compression": "none"},
        "supervisor": {"max_restarts": 50, "backoff_initial_s": 0.1, "backoff_max_s": 0.2},
    }
    with stage.serve(slow) as service:
        service.until("published", lambda: len(stage.published("completed")) == count, deadline_s=300)
        assert service.logged("unit_bound_lowered"), service.tail()
        service.until_logged("broker_throttles")
        assert service.metric("runstep_throttled_seconds_total") > 0
    assert len(stage.published()) == count
