#!/usr/bin/env bash
# surprise: NestJS writes a payload that has a field "key" as a tombstone, and one with a field "value" as that field alone.
# versions: npm @nestjs/microservices 12.1.1, @nestjs/common 12.1.1, @nestjs/core 12.1.1, reflect-metadata 0.2.2, rxjs 7.8.2, kafkajs
#   2.2.4 (on node 20 or newer); PyPI kafka-python 3.0.12 reads; Apache Kafka 4.4.0
# expected: the payload as JSON, as with any other field names: emit(topic, payload) takes what is to be sent.
# does: an object with either field is taken for a Kafka message, of which key, value and headers are read: {"key": "A7", "status":
#   "done"} is a record with the key A7 and no value, which on a compacted topic deletes what is stored under A7, and of
#   {"value": 3, "unit": "tokens"} a 3 is left. Nothing is raised on either side. (Told by nest issue 12886, closed without a change.)

. "$(dirname "$0")/lib/finding.sh"
. "$LIB/broker.sh"
node_packages @nestjs/microservices@12.1.1 @nestjs/common@12.1.1 @nestjs/core@12.1.1 reflect-metadata@0.2.2 rxjs@7.8.2 kafkajs@2.2.4
python_packages kafka-python==3.0.12
broker_start
cat >"$WORK/node/emit.mjs" <<'NODE'
import "reflect-metadata";
import { ClientKafka } from "@nestjs/microservices";
import { lastValueFrom } from "rxjs";

const client = new ClientKafka({ client: { brokers: [process.env.BOOTSTRAP], logLevel: 0 }, producerOnlyMode: true });
await client.connect();
for (const payload of [
  { step: "A7", status: "done" },
  { key: "A7", status: "done" },
  { value: 3, unit: "tokens" },
]) {
  console.log("emitted:", JSON.stringify(payload));
  await lastValueFrom(client.emit("steps", payload));
}
await client.close();
NODE
seen=$(
  (cd "$WORK/node" && timeout 60 node emit.mjs)
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import os

import kafka

reader = kafka.KafkaConsumer("steps", bootstrap_servers=os.environ["BOOTSTRAP"], auto_offset_reset="earliest", consumer_timeout_ms=10000)
for _ in range(3):
    record = next(reader)
    print("record:", record.key, record.value)
reader.close()
PYTHON
)
verdict "emitted: {\"step\":\"A7\",\"status\":\"done\"}
emitted: {\"key\":\"A7\",\"status\":\"done\"}
emitted: {\"value\":3,\"unit\":\"tokens\"}
record: None b'{\"step\":\"A7\",\"status\":\"done\"}'
record: b'A7' None
record: None b'3'" "$seen"
