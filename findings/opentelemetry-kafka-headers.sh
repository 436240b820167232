#!/usr/bin/env bash
# surprise: OpenTelemetry's Kafka instrumentations append a traceparent to the headers they are given, and read the first one.
# versions: PyPI opentelemetry-instrumentation-{aiokafka,kafka-python,confluent-kafka} 0.66b1; aiokafka 0.14.0, kafka-python 3.0.12, confluent-kafka 2.16.1; Kafka 4.4.0
# expected: one traceparent a record, of the send that wrote it: a setter of the propagation API replaces what its carrier
#   has under the key, and the headers of the caller's list are the caller's.
# does: each send adds one to the very list that was passed. With one list for all sends the third record has three of them,
#   and all are read as children of the first send; a record passed on with its headers is read as sent by whoever sent it
#   first. The list grows as long as the process lives.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages opentelemetry-instrumentation-aiokafka==0.66b1 opentelemetry-instrumentation-kafka-python==0.66b1 \
  opentelemetry-instrumentation-confluent-kafka==0.66b1 opentelemetry-sdk==1.45.1 aiokafka==0.14.0 kafka-python==3.0.12 \
  confluent-kafka==2.16.1
broker_start
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
import os

import aiokafka
import confluent_kafka
import kafka
from opentelemetry.instrumentation.aiokafka import AIOKafkaInstrumentor
from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor
from opentelemetry.instrumentation.kafka import KafkaInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logging.disable(logging.CRITICAL)  # topics are created by their first send
BOOTSTRAP = os.environ["BOOTSTRAP"]
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))


def sends():
    return [f"{span.context.span_id:016x}" for span in spans.get_finished_spans() if span.name.endswith(" send")]


def read(topic):
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", consumer_timeout_ms=3000)
    return [[value.decode().split("-")[2] for name, value in record.headers if name == "traceparent"] for record in consumer]


async def with_aiokafka(headers):
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
        for _ in range(3):
            await producer.send_and_wait("aiokafka", b"{}", headers=headers)
    async with aiokafka.AIOKafkaConsumer("aiokafka", bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest") as consumer:
        for _ in range(3):
            await consumer.getone()


def with_kafka_python(headers):
    producer = kafka.KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for _ in range(3):
        producer.send("kafka-python", b"{}", headers=headers).get(10)


def with_confluent(headers):
    producer = confluent_kafka.Producer({"bootstrap.servers": BOOTSTRAP, "log_level": 0})
    producer = ConfluentKafkaInstrumentor().instrument_producer(producer, tracer_provider=provider)
    for _ in range(3):
        producer.produce("confluent-kafka", b"{}", headers=headers)
        producer.flush(10)


for name, instrumentor, run in (
    ("aiokafka", AIOKafkaInstrumentor(), lambda headers: asyncio.run(with_aiokafka(headers))),
    ("kafka-python", KafkaInstrumentor(), with_kafka_python),
    ("confluent-kafka", None, with_confluent),
):
    spans.clear()
    headers = [("app", b"orders")]
    if instrumentor:
        instrumentor.instrument(tracer_provider=provider)
    run(headers)
    parents = [span.parent and f"{span.parent.span_id:016x}" for span in spans.get_finished_spans() if span.name.endswith(" receive")]
    if instrumentor:
        instrumentor.uninstrument()
    sent = sends()
    found = [[sent.index(one) + 1 for one in record] if set(record) <= set(sent) else len(record) for record in read(name)]
    line = f"{name}: traceparents of send {found}, headers in the caller's list {len(headers)}"
    if parents:
        line += f", read as children of send {[sent.index(one) + 1 for one in parents]}"
    print(line)
PYTHON
)
verdict "aiokafka: traceparents of send [[1], [1, 2], [1, 2, 3]], headers in the caller's list 4, read as children of send [1, 1, 1]
kafka-python: traceparents of send [[1], [1, 2], [1, 2, 3]], headers in the caller's list 4
confluent-kafka: traceparents of send [[1], [1, 2], [1, 2, 3]], headers in the caller's list 4" "$seen"
