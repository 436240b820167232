#!/usr/bin/env bash
# surprise: kafka-go reads an empty value as nil, so that a copy of the record is a tombstone and deletes its key.
# versions: Go github.com/segmentio/kafka-go v0.4.51, github.com/twmb/franz-go v1.22.3 for comparison; PyPI kafka-python 3.0.12
#   writes and reads; Apache Kafka 4.4.0
# expected: a value of no bytes for a value of no bytes, as from other clients: in a record it has length 0 and null has length -1,
#   and on a compacted topic null alone deletes a key. kafka-go's own Writer makes that difference.
# does: its Reader hands out nil for both, for keys and headers, too. A program that writes what it has read, such as a copy to
#   another cluster, turns a state that is empty (a protobuf message with no field set has no bytes) into a deletion, and a key
#   of no bytes into no key, which is refused on a compacted topic.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12
broker_start
"$WORK/venv/bin/python" - <<'PYTHON'
import os

import kafka

admin = kafka.KafkaAdminClient(bootstrap_servers=os.environ["BOOTSTRAP"])
admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1} for name in ("first", "copy")})
producer = kafka.KafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"])
producer.send("first", key=b"empty", value=b"", headers=[("trace", b"")])
producer.send("first", key=b"null", value=None)
producer.send("first", key=b"", value=b"no key")
producer.flush()
PYTHON
go_program github.com/segmentio/kafka-go@v0.4.51 github.com/twmb/franz-go/pkg/kgo@v1.22.3 <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

func show(bytes []byte) string {
	if bytes == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", bytes)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	broker := os.Getenv("BOOTSTRAP")
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics("first"))
	if err != nil {
		panic(err)
	}
	for read := 0; read < 3; {
		client.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			read++
			fmt.Println("franz-go: key", show(record.Key), "value", show(record.Value))
		})
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: "first", MaxWait: 100 * time.Millisecond})
	writer := &kafka.Writer{Addr: kafka.TCP(broker), Topic: "copy", BatchTimeout: 10 * time.Millisecond}
	for read := 0; read < 3; read++ {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			panic(err)
		}
		fmt.Println("kafka-go: key", show(message.Key), "value", show(message.Value))
		copied := kafka.Message{Key: message.Key, Value: message.Value, Headers: message.Headers}
		if err := writer.WriteMessages(ctx, copied); err != nil {
			panic(err)
		}
	}
	if err := writer.WriteMessages(ctx, kafka.Message{Key: []byte{}, Value: []byte{}}); err != nil {
		panic(err)
	}
}
GO
seen=$(
  timeout 60 "$WORK/go/program"
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import os

import kafka

consumer = kafka.KafkaConsumer(bootstrap_servers=os.environ["BOOTSTRAP"], auto_offset_reset="earliest")
consumer.assign([kafka.TopicPartition("copy", 0)])
records = [next(consumer) for _ in range(4)]
for record, what in zip(records, ("copy", "copy", "copy", "written as empty")):
    print(f"{what}: key {record.key} value {record.value} headers {record.headers}")
PYTHON
)
verdict "franz-go: key \"empty\" value \"\"
franz-go: key \"null\" value nil
franz-go: key \"\" value \"no key\"
kafka-go: key \"empty\" value nil
kafka-go: key \"null\" value nil
kafka-go: key nil value \"no key\"
copy: key b'empty' value None headers [('trace', None)]
copy: key b'null' value None headers []
copy: key None value b'no key' headers []
written as empty: key b'' value b'' headers []" "$seen"
