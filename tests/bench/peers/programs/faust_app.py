"""Faust (faust-streaming, on aiokafka): an agent and a table with a changelog topic, on uvloop."""

from __future__ import annotations

import sys
from typing import Any

import faust
import uvloop

from tests.bench.peers.programs import job

uvloop.install()

_session = {"broker_session_timeout": job.SESSION_MS / 1000, "broker_heartbeat_interval": job.SESSION_MS / 6000}

app = faust.App(
    job.GROUP,
    broker=f"kafka://{job.BOOTSTRAP}",
    store=job.STORE or "memory://",
    datadir=job.DIRECTORY,
    topic_partitions=job.PARTITIONS,
    consumer_auto_offset_reset="earliest",
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    broker_commit_interval=(job.COMMIT_MS or 2800) / 1000,
    stream_wait_empty=False,
    stream_buffer_maxsize=16_384,
    broker_max_poll_records=5_000,
    producer_linger=0.02,  # seconds, whatever its documentation says
    producer_max_batch_size=256 << 10,
    producer_acks=-1,
    autodiscover=False,
    **({"processing_guarantee": "exactly_once"} if job.EXACTLY_ONCE else {}),
    **(_session if job.SESSION_MS else {}),
)
source = app.topic(job.SOURCE, value_serializer="json", key_serializer="raw", partitions=job.PARTITIONS)
steps = app.Table("steps", partitions=job.PARTITIONS, key_type=str)
topics = {
    kind: app.topic(name, key_serializer="raw", value_serializer="json", partitions=job.PARTITIONS)
    for kind, name in job.TOPICS.items()
}


@app.agent(source)
async def fold(stream: Any) -> None:
    async for event in stream:
        job.begin()
        if not event["event"].startswith(job.PREFIX):
            continue
        data = event["data"]
        old = steps.get(data["id"])
        new, kind, out = job.fold(old, event["event"], data)
        if new is not old or isinstance(new, dict):
            steps[data["id"]] = new
        if kind:
            await topics[kind].send(key=data["id"], value=out)


if __name__ == "__main__":
    app.worker_init()
    sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]
    app.main()
