#!/usr/bin/env bash
# surprise: Rust's rskafka gets no further in a partition than the first transaction marker, or the first header whose value is null.
# versions: crates.io rskafka 0.6.0, tokio 1.54.1; PyPI confluent-kafka 2.16.1 writes and reads for comparison; Apache Kafka 4.4.0
# expected: the records at the offsets 0, 1 and 3. A program that only reads is given the markers of other programs' transactions by the
#   broker, as control batches, which are not handed on by the protocol's guide. rskafka has no transactions, as its README says, but
#   its source knows control batches. A header's value may be null in a record of version 2.
# does: a fetch that has such a batch in it fails whole as malformed, so that the records before it are not handed out, either, and
#   those behind it are not reached: a reader that tries again stays where it is. It reads the marker as if its bytes were not wrapped
#   in a record, and takes a null's length of -1 for wrong. Only because the program below goes on by one offset after each error does
#   it come to the last record.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
rust_program "rskafka@0.6.0 --no-default-features" "tokio@1.54.1 --features rt-multi-thread,macros" <<'RUST'
use rskafka::client::partition::UnknownTopicHandling;
use rskafka::client::ClientBuilder;

#[tokio::main]
async fn main() {
    let broker = std::env::args().nth(1).unwrap();
    let client = ClientBuilder::new(vec![broker]).build().await.unwrap();
    for topic in ["plain", "transaction", "null-header"] {
        println!("rskafka, topic {topic}");
        let partition = client.partition_client(topic, 0, UnknownTopicHandling::Retry).await.unwrap();
        let mut next = 0;
        while next < 4 {
            match partition.fetch_records(next, 1..1_000_000, 500).await {
                Ok((records, end)) => {
                    for read in &records {
                        println!("  {}: {}", read.offset, String::from_utf8_lossy(read.record.value.as_ref().unwrap()));
                    }
                    next = records.last().map_or(end, |last| last.offset + 1);
                    if next >= end {
                        break;
                    }
                }
                Err(error) => {
                    println!("  from {next}: {}", if format!("{error:?}").contains("Malformed") { "malformed" } else { "other" });
                    next += 1;
                }
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
plain, transactional = Producer(settings), Producer(settings | {"transactional.id": "writer"})
transactional.init_transactions()
marked = Consumer(settings | {"group.id": "none", "isolation.level": "read_committed"})


def write(topic, value, **more):
    plain.produce(topic, value, **more)
    plain.flush()


for topic in ("plain", "transaction", "null-header"):
    write(topic, "first")
    if topic == "transaction":
        transactional.begin_transaction()
        transactional.produce(topic, "second")
        transactional.commit_transaction()
        until = time.monotonic() + 30  # the marker is written after the commit has been answered
        while (end := marked.get_watermark_offsets(TopicPartition(topic, 0))[1]) < 3:
            assert time.monotonic() < until, end
    else:
        write(topic, "second", headers=[("note", None)] if topic == "null-header" else [])
    write(topic, "third")
    reader = Consumer(settings | {"group.id": "none", "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, 0)])
    read = []
    while not read or not read[-1].error():
        read += [message for message in [reader.poll(1)] if message is not None]
    print(f"confluent-kafka, topic {topic}: {', '.join(f'{one.offset()} {one.value().decode()}' for one in read[:-1])}")
PYTHON
  timeout 60 "$WORK/rust/target/debug/finding" "$BOOTSTRAP" 2>/dev/null
)
verdict "confluent-kafka, topic plain: 0 first, 1 second, 2 third
confluent-kafka, topic transaction: 0 first, 1 second, 3 third
confluent-kafka, topic null-header: 0 first, 1 second, 2 third
rskafka, topic plain
  0: first
  1: second
  2: third
rskafka, topic transaction
  from 0: malformed
  from 1: malformed
  from 2: malformed
  3: third
rskafka, topic null-header
  from 0: malformed
  from 1: malformed
  2: third" "$seen"
