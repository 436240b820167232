"""Bytewax: a stateful flat map by step id, its state in a recovery store on disk. It has no Kafka transactions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from confluent_kafka import OFFSET_BEGINNING

from tests.bench.peers.programs import job


def decode(message: Any) -> tuple[str, Any]:
    job.begin()
    event = orjson.loads(message.value)
    return event["data"]["id"], event


def decode_mixed(message: Any) -> tuple[str, Any] | None:
    event = orjson.loads(message.value)
    return (event["data"]["id"], event) if job.is_of_step(event) else None


def step(state: job.State, event: Any) -> tuple[job.State, list[tuple[str, Any]]]:
    state, kind, out = job.fold(state, event["event"], event["data"])
    return state, [(kind, out)] if kind else []


def encode(done: tuple[str, tuple[str, Any]]) -> Any:
    step_id, (kind, out) = done
    return KafkaSinkMessage(step_id.encode(), orjson.dumps(out), topic=job.TOPICS[kind])


flow = Dataflow("bench")
source = KafkaSource([job.BOOTSTRAP], [job.SOURCE], tail=False, starting_offset=OFFSET_BEGINNING, batch_size=5_000)
records = op.input("in", flow, source)
keyed = op.filter_map("decode", records, decode_mixed) if job.IS_MIXED else op.map("decode", records, decode)
encoded = op.map("encode", op.stateful_flat_map("fold", keyed, step), encode)
op.output("out", encoded, KafkaSink([job.BOOTSTRAP], None, add_config={"linger.ms": "20", "batch.size": "262144"}))

if __name__ == "__main__":
    store = Path(job.DIRECTORY)
    if not any(store.iterdir()):  # else a killed process left its state there
        init_db_dir(store, 1)
    cli_main(
        flow,
        workers_per_process=1,
        epoch_interval=timedelta(milliseconds=job.COMMIT_MS or 10_000),
        recovery_config=RecoveryConfig(store, timedelta(0)),
    )
    job.end()
