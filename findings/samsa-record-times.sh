#!/usr/bin/env bash
# surprise: Rust's samsa doubles a record's distance in time from the first of its batch, and hands out aborted records and markers.
# versions: crates.io samsa 0.1.8, tokio 1.54.1, futures 0.3.34; PyPI confluent-kafka 2.16.1 writes and reads for comparison; Apache
#   Kafka 4.4.0
# expected: the times that the records have in the log, no value for the tombstone, and with isolation_level(1), which samsa documents
#   as read_committed, the records of committed transactions alone, without the markers, which are no records of the topic.
# does: a record's time is stored as the difference from its batch's first one, in Kafka's zigzag form, and samsa adds that form as it is: one
#   second becomes two, and one second earlier 1,999 ms later. A null value is an empty one, so that a copy keeps what the tombstone
#   deletes, and headers are not handed out at all. Which transactions were aborted it reads, and hands out their records all the same.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
rust_program samsa@0.1.8 "tokio@1.54.1 --features rt-multi-thread,macros" futures@0.3.34 <<'RUST'
use futures::StreamExt;
use samsa::prelude::{BrokerAddress, ConsumerBuilder, TcpConnection, TopicPartitionsBuilder};

#[tokio::main]
async fn main() {
    let port = std::env::args().nth(1).unwrap().parse().unwrap();
    let broker = BrokerAddress { host: "127.0.0.1".to_string(), port };
    for (topic, end) in [("times", 3), ("transactions", 4)] {
        let partitions = TopicPartitionsBuilder::new().assign(topic.to_string(), vec![0]).build();
        let consumer = ConsumerBuilder::<TcpConnection>::new(vec![broker.clone()], partitions).await.unwrap();
        let stream = consumer.isolation_level(1).max_wait_ms(500).build().into_stream();
        futures::pin_mut!(stream);
        let mut read = 0;
        while read < end {
            for message in stream.next().await.unwrap().unwrap() {
                let value = String::from_utf8(message.value.to_vec()).unwrap();
                println!("samsa, {topic}: {} time {} value {value:?}", message.offset, if topic == "times" { message.timestamp } else { 0 });
                read += 1;
            }
        }
    }
}
RUST
broker_start
seen=$(
  timeout 60 "$WORK/venv/bin/python" - "$BOOTSTRAP" <<'PYTHON'
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

settings = {"bootstrap.servers": sys.argv[1]}
plain = Producer(settings | {"linger.ms": 2_000})
began = 1_767_225_600_000
for value, later in (("first", 0), ("second", 1_000), (None, -1_000)):
    plain.produce("times", value, "key", timestamp=began + later)
plain.flush()
transactional = Producer(settings | {"transactional.id": "writer"})
transactional.init_transactions()
for value in ("aborted", "committed"):
    transactional.begin_transaction()
    transactional.produce("transactions", value)
    transactional.flush()
    if value == "aborted":
        transactional.abort_transaction()
    else:
        transactional.commit_transaction()
marked = Consumer(settings | {"group.id": "none", "isolation.level": "read_committed"})
until = time.monotonic() + 30  # the marker is written after the commit has been answered
while (end := marked.get_watermark_offsets(TopicPartition("transactions", 0))[1]) < 4:
    assert time.monotonic() < until, end
for topic in ("times", "transactions"):
    reader = Consumer(settings | {"group.id": "none", "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, 0)])
    while (message := reader.poll(1)) is None or not message.error():
        if message is not None:
            when = message.timestamp()[1] if topic == "times" else 0
            print(f"confluent-kafka, {topic}: {message.offset()} time {when} value {message.value()}")
PYTHON
  timeout 60 "$WORK/rust/target/debug/finding" "${BOOTSTRAP#*:}"
)
verdict "confluent-kafka, times: 0 time 1767225600000 value b'first'
confluent-kafka, times: 1 time 1767225601000 value b'second'
confluent-kafka, times: 2 time 1767225599000 value None
confluent-kafka, transactions: 2 time 0 value b'committed'
samsa, times: 0 time 1767225600000 value \"first\"
samsa, times: 1 time 1767225602000 value \"second\"
samsa, times: 2 time 1767225601999 value \"\"
samsa, transactions: 0 time 0 value \"aborted\"
samsa, transactions: 1 time 0 value \"\\0\\0\\0\\0\\0\\0\"
samsa, transactions: 2 time 0 value \"committed\"
samsa, transactions: 3 time 0 value \"\\0\\0\\0\\0\\0\\0\"" "$seen"
