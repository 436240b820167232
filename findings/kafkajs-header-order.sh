#!/usr/bin/env bash
# surprise: kafkajs cannot pass a record on as it came: headers are grouped by name, so their order is another afterwards.
# versions: npm kafkajs 2.2.4; PyPI kafka-python 3.0.12 writes and reads; Apache Kafka 4.4.0
# expected: a consumer that sends message.headers on unchanged sends the same headers. KIP-82 makes a record's headers an
#   ordered list in which a name can stand more than once, and the Java client's Headers keep the order of addition.
# does: message.headers is an object of name to value, or to an array of values. What stood between two headers of one name
#   goes behind them, and a name that looks like an array index ("7") goes before all others, as in any JavaScript object.
#   Trails of hops and signatures over the header list do not survive a relay.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12
node_packages kafkajs@2.2.4
broker_start
timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import os

from kafka import KafkaProducer

headers = [("hop", b"a"), ("sign", b"1"), ("hop", b"b"), ("7", b"2")]
KafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"]).send("orders", b"one", headers=headers).get(30)
KafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"]).send("relayed", b"first").get(30)
PYTHON
cat >"$WORK/node/relay.js" <<'NODE'
const {Kafka, logLevel} = require('kafkajs')
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
const kafka = new Kafka({brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING});
(async () => {
  const consumer = kafka.consumer({groupId: 'relay'}), producer = kafka.producer()
  await producer.connect()
  await consumer.connect()
  await consumer.subscribe({topic: 'orders', fromBeginning: true})
  await new Promise((done) => consumer.run({eachMessage: async ({message}) => {
    await producer.send({topic: 'relayed', messages: [{value: message.value, headers: message.headers}]})
    done()
  }}))
  process.exit(0)
})()
NODE
(cd "$WORK/node" && timeout 60 node relay.js)
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import os

from kafka import KafkaConsumer

for topic in ("orders", "relayed"):
    consumer = KafkaConsumer(topic, bootstrap_servers=os.environ["BOOTSTRAP"], auto_offset_reset="earliest")
    record = next(record for record in consumer if record.value == b"one")
    print(topic, *(f"{name}={value.decode()}" for name, value in record.headers))
PYTHON
)
verdict "orders hop=a sign=1 hop=b 7=2
relayed 7=2 hop=a hop=b sign=1" "$seen"
