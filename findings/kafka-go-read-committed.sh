#!/usr/bin/env bash
# surprise: kafka-go's ReadCommitted hands out the records of aborted transactions, and the transaction markers as messages.
# versions: Go github.com/segmentio/kafka-go v0.4.51; PyPI confluent-kafka 2.16.1 writes; Apache Kafka 4.4.0
# expected: of an aborted transaction nothing, of a committed one its record. The comment on ReaderConfig.IsolationLevel says
#   "With ReadCommitted only non-transactional and committed records are visible"; Kafka's documentation of the record batch
#   says that control records should not be passed on to applications.
# does: the broker stops at the last stable offset, the client filters nothing. Each marker arrives as a message whose key and
#   value are the marker's own 4 and 6 bytes, so that a JSON reader fails on it (reported as segmentio/kafka-go issue 1332).

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
broker_start
"$WORK/venv/bin/python" - <<'PYTHON'
import os

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": os.environ["BOOTSTRAP"], "transactional.id": "finding", "log_level": 0})
producer.init_transactions()
for value, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
    producer.begin_transaction()
    producer.produce("orders", value, partition=0)
    producer.flush(30)
    end()
PYTHON
go_program github.com/segmentio/kafka-go@v0.4.51 <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

func main() {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{os.Getenv("BOOTSTRAP")}, Topic: "orders", IsolationLevel: kafka.ReadCommitted,
		MaxWait: 200 * time.Millisecond,
	})
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		message, err := reader.ReadMessage(ctx)
		cancel()
		if err != nil {
			break
		}
		fmt.Printf("offset %d key %x value %q\n", message.Offset, message.Key, message.Value)
	}
}
GO
verdict 'offset 0 key  value "aborted"
offset 1 key 00000000 value "\x00\x00\x00\x00\x00\x00"
offset 2 key  value "committed"
offset 3 key 00000001 value "\x00\x00\x00\x00\x00\x00"' "$(timeout 60 "$WORK/go/program")"
