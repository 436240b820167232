"""Quix Streams 3: a stateful apply over RocksDB with a changelog topic, as it comes."""

from __future__ import annotations

from typing import Any

from quixstreams import Application

from tests.bench.peers.programs import job

_session = {"session.timeout.ms": job.SESSION_MS, "heartbeat.interval.ms": job.SESSION_MS // 6}

# Its own advice for throughput: a long commit interval (5 s is the default), and librdkafka's batching.
app = Application(
    broker_address=job.BOOTSTRAP,
    consumer_group=job.GROUP,
    auto_offset_reset="earliest",
    state_dir=job.DIRECTORY,
    loglevel="WARNING",
    processing_guarantee="exactly-once" if job.EXACTLY_ONCE else "at-least-once",
    commit_interval=(job.COMMIT_MS or 5000) / 1000,
    producer_extra_config={"linger.ms": 20, "batch.size": 256 << 10, "queue.buffering.max.messages": 1_000_000},
    consumer_extra_config={
        "queued.min.messages": 100_000,
        "fetch.wait.max.ms": 50,
        **(_session if job.SESSION_MS else {}),
    },
)


def step(event: dict[str, Any], state: Any) -> list[tuple[str, Any]]:
    job.begin()
    data = event["data"]
    old = state.get(data["id"])
    new, kind, out = job.fold(old, event["event"], data)
    if new is not old or isinstance(new, dict):
        state.set(data["id"], new)
    return [(kind, out)] if kind else []


source = app.topic(job.SOURCE, value_deserializer="json", key_deserializer="str")
events = app.dataframe(source)
if job.IS_MIXED:
    events = events.filter(job.is_of_step)
done = events.apply(step, stateful=True, expand=True)
for kind, name in job.TOPICS.items():
    topic = app.topic(name, value_serializer="json", key_serializer="str")
    branch = done.filter(lambda told, kind=kind: told[0] == kind).apply(lambda told: told[1])
    branch.to_topic(topic, key=lambda out: out["id"])

if __name__ == "__main__":
    app.run()
