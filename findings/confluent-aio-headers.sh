#!/usr/bin/env bash
# surprise: confluent-kafka's AIOProducer.produce lists headers among its parameters and refuses every call that has some.
# versions: PyPI confluent-kafka 2.16.1
# expected: a record with headers, as from the synchronous Producer of the same package. The docstring of AIOProducer.produce
#   says "Additional parameters like partition, timestamp, headers".
# does: NotImplementedError, for an empty list, too. As it is raised at the call, a program that traces with headers works until
#   tracing is switched on.

. "$(dirname "$0")/lib/finding.sh"
python_packages confluent-kafka==2.16.1
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio

from confluent_kafka.aio import AIOProducer


async def main() -> None:
    print("docstring names headers:", "partition, timestamp, headers" in (AIOProducer.produce.__doc__ or ""))
    producer = AIOProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})  # no broker is needed to see it
    for headers in ([("trace", b"1")], []):
        try:
            await producer.produce("orders", b"one", headers=headers)
            print(headers, "taken")
        except NotImplementedError as error:
            print(headers, "NotImplementedError:", str(error).split(".")[0])


asyncio.run(main())
PYTHON
)
verdict "docstring names headers: True
[('trace', b'1')] NotImplementedError: Headers are not supported in AIOProducer batch mode
[] NotImplementedError: Headers are not supported in AIOProducer batch mode" "$seen"
