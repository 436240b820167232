#!/usr/bin/env bash
# surprise: After a refused offset commit aiokafka's abort_transaction aborts nothing, and the next commit publishes the records.
# versions: PyPI aiokafka 0.14.0, kafka-python 3.0.12 reads; Apache Kafka 4.4.0 with one deny rule
# expected: readers of committed data never see the first record: KIP-98 keeps all records of an aborted transaction from them,
#   and abort_transaction returned without an error.
# does: when the broker refuses the group, the client forgets which partitions the transaction has, takes it for empty and sends
#   no EndTxn. To the broker it is still open: what is sent next goes into the same one, and the next commit commits both.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages aiokafka==0.14.0 kafka-python==3.0.12
BROKER_SETTINGS=(
  authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
  allow.everyone.if.no.acl.found=true
)
broker_start
kafka_tool org.apache.kafka.tools.AclCommand --bootstrap-server "$BOOTSTRAP" --add --deny-principal User:ANONYMOUS \
  --operation Read --group forbidden >/dev/null
seen=$(timeout 90 "$WORK/venv/bin/python" - 2>"$WORK/client.log" <<'PYTHON'
import asyncio
import os

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError
from kafka import KafkaConsumer

SERVERS = os.environ["BOOTSTRAP"]


async def write() -> None:
    async with AIOKafkaProducer(bootstrap_servers=SERVERS, transactional_id="finding") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait("orders", b"of the aborted transaction", partition=0)
        try:
            await producer.send_offsets_to_transaction({TopicPartition("source", 0): 1}, "forbidden")
        except GroupAuthorizationFailedError:
            print("offsets refused")
        await producer.abort_transaction()
        print("abort_transaction returned")
        await producer.begin_transaction()
        await producer.send_and_wait("orders", b"of the committed transaction", partition=0)
        await producer.commit_transaction()


asyncio.run(write())
consumer = KafkaConsumer(
    "orders", bootstrap_servers=SERVERS, auto_offset_reset="earliest", isolation_level="read_committed"
)
values = []
while b"of the committed transaction" not in values:
    values += [record.value for records in consumer.poll(1000).values() for record in records]
print("read_committed reads:", *(value.decode() for value in values), sep="\n  ")
PYTHON
) || { tail "$WORK/client.log" >&2; exit 1; }
verdict "offsets refused
abort_transaction returned
read_committed reads:
  of the aborted transaction
  of the committed transaction" "$seen"
