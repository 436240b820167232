"""Flechtwerk: a transformer over RocksDB with a changelog, a transaction per partition and poll; uvloop, as advised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import uvloop
from flechtwerk import Event, Flechtwerk, Message, State, transformer
from flechtwerk.attribute import ANY, Attribute

from tests.bench.peers.programs import job

STEP, DATA, EVENT = Attribute("step", ANY), Attribute("data", ANY), Attribute("event", ANY)


@transformer(input_topics=[job.SOURCE], extract_state_key=lambda message: message.value[DATA]["id"])
async def stage(message: Any, state: Any) -> AsyncIterator[Any]:
    job.begin()
    if not message.value[EVENT].startswith(job.PREFIX):
        return
    data = message.value[DATA]
    old = state.get(STEP)
    new, kind, out = job.fold(old, message.value[EVENT], data)
    if kind:
        yield Message(key=data["id"], topic=job.TOPICS[kind], value=Event.wrap(out))
    if new is not old or isinstance(new, dict):
        yield State({STEP: new})


async def main() -> None:
    await Flechtwerk.of(
        application_id=job.GROUP,
        bootstrap_servers=job.BOOTSTRAP,
        client_id="bench-0",
        stage=stage,
        max_poll_records=5_000,
        compression_type=None,
    ).run()


if __name__ == "__main__":
    uvloop.run(main())
