#!/usr/bin/env bash
# surprise: A group of franz-go, sarama or kafkajs that has read all records of transactions keeps a lag of 1.
# versions: Go github.com/twmb/franz-go v1.22.3, github.com/IBM/sarama v1.61.1; npm kafkajs 2.2.4 (on node 20 or newer); PyPI
#   confluent-kafka 2.16.1 writes and reads for comparison; Apache Kafka 4.4.0 and its console consumer, too
# expected: lag 0, as with Kafka's own consumer: there is nothing that the group could still read.
# does: a transaction's end is a marker with an offset of its own behind the last record. These three commit the offset behind the
#   last record that they handed out, on the marker; Java's client and librdkafka commit the position behind it. What scales or
#   alerts by lag sees one record per partition that nobody can read, and a check for "all read" is never true.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
node_packages kafkajs@2.2.4
broker_start
"$WORK/venv/bin/python" - <<'PYTHON'
import os

from confluent_kafka import Consumer, Producer

servers = {"bootstrap.servers": os.environ["BOOTSTRAP"], "log_level": 0}
producer = Producer({**servers, "transactional.id": "finding"})
producer.init_transactions(60)
producer.begin_transaction()
for _ in range(3):
    producer.produce("orders", b"value", partition=0)
producer.commit_transaction(60)

reading = {"group.id": "confluent-kafka", "auto.offset.reset": "earliest", "enable.partition.eof": True}
consumer = Consumer({**servers, **reading, "enable.auto.commit": False})
consumer.subscribe(["orders"])
while (message := consumer.poll(1)) is None or message.error() is None:
    pass  # until the end of the partition
consumer.commit(asynchronous=False)
consumer.close()
PYTHON
cat >"$WORK/node/read.js" <<'NODE'
const {Kafka, logLevel} = require('kafkajs')
const kafka = new Kafka({brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING})
const consumer = kafka.consumer({groupId: 'kafkajs', maxWaitTimeInMs: 500})
let read = 0
let turns = 0
consumer.on(consumer.events.FETCH, () => { if (read === 3) turns += 1 })
const end = async () => {
  if (turns < 4) return setTimeout(end, 100)
  await consumer.disconnect()
}
consumer.connect()
  .then(() => consumer.subscribe({topic: 'orders', fromBeginning: true}))
  .then(() => consumer.run({eachMessage: async () => { read += 1 }}))
  .then(end)
NODE
go_program github.com/twmb/franz-go/pkg/kgo@v1.22.3 github.com/IBM/sarama@v1.61.1 <<'GO'
package main

import (
	"context"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func withFranz(broker string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumerGroup("franz-go"), kgo.ConsumeTopics("orders"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond), kgo.DisableAutoCommit())
	check(err)
	defer client.Close()
	for read := 0; read < 3; {
		read += client.PollFetches(context.Background()).NumRecords()
	}
	more, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client.PollFetches(more) // gives nothing: all is read
	check(client.CommitUncommittedOffsets(context.Background()))
}

type reader struct{ read chan struct{} }

func (reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		session.MarkMessage(message, "")
		r.read <- struct{}{}
	}
	return nil
}

func withSarama(broker string) {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Consumer.MaxWaitTime = 500 * time.Millisecond
	group, err := sarama.NewConsumerGroup([]string{broker}, "sarama", config)
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	read, ended := make(chan struct{}), make(chan error)
	go func() { ended <- group.Consume(ctx, []string{"orders"}, reader{read}) }()
	for range 3 {
		<-read
	}
	time.Sleep(2 * time.Second) // several fetches more
	cancel()
	check(<-ended)
	check(group.Close())
}

func main() {
	withFranz(os.Getenv("BOOTSTRAP"))
	withSarama(os.Getenv("BOOTSTRAP"))
}
GO
timeout 60 "$WORK/go/program"
(cd "$WORK/node" && timeout 60 node read.js)
kafka_tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$BOOTSTRAP" --topic orders --group java \
  --from-beginning --max-messages 4 --timeout-ms 10000 --isolation-level read_committed >/dev/null 2>&1 || true
seen=$(kafka_tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$BOOTSTRAP" --describe \
  --all-groups 2>&1 | awk '$2 == "orders" {print $1, "offset", $4, "of", $5, "lag", $6}' | sort)
verdict "confluent-kafka offset 4 of 4 lag 0
franz-go offset 3 of 4 lag 1
java offset 4 of 4 lag 0
kafkajs offset 3 of 4 lag 1
sarama offset 3 of 4 lag 1" "$seen"
