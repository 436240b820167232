#!/usr/bin/env bash
# surprise: A group whose classic member works is described as Dead, empty and without error, once a KIP-848 member is in it.
# versions: PyPI aiokafka 0.14.0 (classic member and description), confluent-kafka 2.16.1 (KIP-848 member); Kafka 4.4.0
# expected: the living classic member, or an error that names the group's type. KIP-848 provides for groups in which members of
#   both protocols work during a migration, and both share the partitions here.
# does: DescribeGroups up to version 5 answers error 0, state Dead and no members, as for a group that never existed; only
#   version 6 has an error to say "not a classic group". A monitor on an older client reports the loss of a group that reads on.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages aiokafka==0.14.0 confluent-kafka==2.16.1
broker_start
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio
import os

import confluent_kafka
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka.admin import AdminClient, NewTopic

SERVERS = os.environ["BOOTSTRAP"]


async def main() -> None:
    new_admin = AdminClient({"bootstrap.servers": SERVERS})
    new_admin.create_topics([NewTopic("orders", 2, 1)])["orders"].result(30)
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()

    async def describe(when: str) -> None:
        error, _, state, _, _, members, *_ = (await admin.describe_consumer_groups(["finding"]))[0].groups[0]
        new = new_admin.describe_consumer_groups(["finding"])["finding"].result(30)
        print(f"{when}: the classic member reads {len(classic.assignment())} of 2 partitions")
        print(f"  aiokafka: error {error}, {state}, members: {len(members)}")
        print(f"  confluent-kafka: {new.state.name}, members: {len(new.members)}")

    classic = AIOKafkaConsumer("orders", bootstrap_servers=SERVERS, group_id="finding", heartbeat_interval_ms=500)
    await classic.start()
    await classic.getmany(timeout_ms=200)
    await describe("alone")
    modern = confluent_kafka.Consumer(
        {"bootstrap.servers": SERVERS, "group.id": "finding", "group.protocol": "consumer", "log_level": 0}
    )
    modern.subscribe(["orders"])
    while not modern.assignment() or len(classic.assignment()) != 1:
        await asyncio.to_thread(modern.poll, 0.2)
        await classic.getmany(timeout_ms=200)
    await describe("with a KIP-848 member")
    await asyncio.to_thread(modern.close)
    await classic.stop()
    await admin.close()


asyncio.run(main())
PYTHON
)
verdict "alone: the classic member reads 2 of 2 partitions
  aiokafka: error 0, Stable, members: 1
  confluent-kafka: STABLE, members: 1
with a KIP-848 member: the classic member reads 1 of 2 partitions
  aiokafka: error 0, Dead, members: 0
  confluent-kafka: STABLE, members: 2" "$seen"
