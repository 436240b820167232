#!/usr/bin/env bash
# surprise: On a topic with LogAppendTime, kafka-go and @platformatic/kafka give the producer's time and not the broker's.
# versions: Go github.com/segmentio/kafka-go v0.4.51; npm @platformatic/kafka 2.12.1 (on node 22.22.0); kafkajs 2.2.4 for
#   comparison; PyPI confluent-kafka 2.16.1 writes; Apache Kafka 4.4.0
# expected: the time of the append for every record. The topic setting message.timestamp.type says whether a message's timestamp
#   is its creation's or its append's; with the latter, KIP-32 says, the broker's local time takes the place of the producer's.
# does: the broker does not rewrite each record. It sets one bit and the maximum timestamp of the batch, and readers are to use
#   that. These two add each record's delta to the batch's base timestamp without a look at the bit, so a wrong producer
#   clock, which LogAppendTime is used to overrule, comes through.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
node_22
node_packages @platformatic/kafka@2.12.1 kafkajs@2.2.4
broker_start
"$WORK/venv/bin/python" - <<'PYTHON'
import os

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

servers = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
admin = AdminClient(servers)
admin.create_topics([NewTopic("orders", 1, 1, config={"message.timestamp.type": "LogAppendTime"})])["orders"].result(30)
producer = Producer(servers)
producer.produce("orders", "one", timestamp=1_500_000_000_000)  # July 2017
producer.flush(30)
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
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{os.Getenv("BOOTSTRAP")}, Topic: "orders"})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	message, err := reader.ReadMessage(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("kafka-go", message.Time.UTC().Year())
}
GO
cat >"$WORK/node/read.js" <<'NODE'
const {Kafka, logLevel} = require('kafkajs')
const platformatic = require('@platformatic/kafka')
const broker = process.env.BOOTSTRAP
const year = (ms) => new Date(Number(ms)).getUTCFullYear()

async function withPlatformatic() {
  const consumer = new platformatic.Consumer({groupId: 'a', clientId: 'a', bootstrapBrokers: [broker]})
  const stream = await consumer.consume({topics: ['orders'], mode: 'earliest', autocommit: false})
  for await (const message of stream) return year(message.timestamp)
}

async function withKafkajs() {
  const consumer = new Kafka({brokers: [broker], logLevel: logLevel.NOTHING}).consumer({groupId: 'b'})
  await consumer.connect()
  await consumer.subscribe({topic: 'orders', fromBeginning: true})
  return new Promise((done) => consumer.run({eachMessage: async ({message}) => done(year(message.timestamp))}))
}

(async () => {
  console.log('@platformatic/kafka', await withPlatformatic())
  const seen = await withKafkajs()
  console.log('kafkajs', seen >= 2026 ? 'time of the append' : seen)
  process.exit(0)
})()
NODE
seen=$(timeout 60 "$WORK/go/program" && cd "$WORK/node" && timeout 60 "$NODE" read.js)
verdict "kafka-go 2017
@platformatic/kafka 2017
kafkajs time of the append" "$seen"
