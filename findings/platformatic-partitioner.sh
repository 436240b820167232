#!/usr/bin/env bash
# surprise: @platformatic/kafka puts a key where the Java client does only if the number of partitions is a power of two.
# versions: npm @platformatic/kafka 2.12.1 (on node 22.22.0), kafkajs 2.2.4; Maven org.apache.kafka:kafka-clients:4.4.0
# expected: Java's partition for every key: the default partitioner hashes keys with murmur2, as Java's does, and a topic written
#   by both must keep a key's records on one partition (Kafka's producer javadoc: records with the same key go to the same one).
# does: Java masks the sign bit away before the remainder, this default takes the hash as an unsigned number. With 4, 8 or 16
#   partitions both are equal, so a test passes; with 6 or 12 every second key lies elsewhere. The same package exports
#   compatibilityPartitioner, which masks; kafkajs's default does, too.

. "$(dirname "$0")/lib/finding.sh"
node_22
node_packages @platformatic/kafka@2.12.1 kafkajs@2.2.4
java_packages clients org.apache.kafka:kafka-clients:4.4.0 org.slf4j:slf4j-simple:1.7.36
cat >"$WORK/Java.java" <<'JAVA'
import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

class Java {
    public static void main(String[] arguments) {
        for (int partitions : new int[] {4, 6, 8, 12})
            for (int key = 0; key < 1000; key++)
                System.out.println(
                    BuiltInPartitioner.partitionForKey(("order-" + key).getBytes(StandardCharsets.UTF_8), partitions));
    }
}
JAVA
java -cp "$WORK/clients/*" "$WORK/Java.java" >"$WORK/java.txt"
cat >"$WORK/node/compare.js" <<'NODE'
const {defaultPartitioner, compatibilityPartitioner} = require('@platformatic/kafka')
const kafkajs = require('kafkajs').Partitioners.DefaultPartitioner()
const java = require('fs').readFileSync(process.argv[2], 'utf8').trim().split('\n').map(Number)
for (const partitions of [4, 6, 8, 12]) {
  const equal = {default: 0, compatibility: 0, kafkajs: 0}
  const partitionMetadata = Array.from({length: partitions}, (_, partitionId) => ({partitionId, leader: 1}))
  for (let i = 0; i < 1000; i++) {
    const key = Buffer.from(`order-${i}`), expected = java.shift()
    equal.default += defaultPartitioner({}, key) % partitions === expected // the producer takes the remainder, too
    equal.compatibility += compatibilityPartitioner({}, key) % partitions === expected
    equal.kafkajs += kafkajs({topic: 'orders', partitionMetadata, message: {key}}) === expected
  }
  console.log(`${partitions} partitions, of 1000 keys as Java:`, JSON.stringify(equal))
}
NODE
verdict '4 partitions, of 1000 keys as Java: {"default":1000,"compatibility":1000,"kafkajs":1000}
6 partitions, of 1000 keys as Java: {"default":501,"compatibility":1000,"kafkajs":1000}
8 partitions, of 1000 keys as Java: {"default":1000,"compatibility":1000,"kafkajs":1000}
12 partitions, of 1000 keys as Java: {"default":501,"compatibility":1000,"kafkajs":1000}' \
  "$(cd "$WORK/node" && timeout 60 "$NODE" compare.js "$WORK/java.txt")"
