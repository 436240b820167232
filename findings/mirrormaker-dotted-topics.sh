#!/usr/bin/env bash
# surprise: MirrorMaker 2 does not mirror the topic backup.orders to a cluster that is called backup, and takes orders.eu for a mirrored one.
# versions: Maven org.apache.kafka:connect-mirror:4.3.1, connect-mirror-client:4.3.1
# expected: each topic that "topics" names, as its default .* does, except those of topics.exclude (Kafka's own and *.replica): the topic is a
#   plain one that producers of the cluster main write to. Kafka allows dots in names, and many topics have a domain before one.
# does: a name with a dot in it is read as the name of a cluster and that of its topic. If one of the words before a dot is the target's
#   name, the topic is taken for a copy of the target's own and left out, without an error and without a line in the log: the
#   backup has no records of it. For each other name with a dot, tools that ask the policy are told of a source that does not exist.

. "$(dirname "$0")/lib/finding.sh"
java_packages mirror org.apache.kafka:connect-mirror:4.3.1 org.slf4j:slf4j-nop:1.7.36
mkdir -p "$WORK/program"
cat >"$WORK/program/Mirrored.java" <<'JAVA'
package org.apache.kafka.connect.mirror; // the connector's own decision is not public

import java.util.Map;

public class Mirrored {
  public static void main(String[] topics) {
    DefaultReplicationPolicy policy = new DefaultReplicationPolicy();
    policy.configure(Map.of());
    DefaultTopicFilter filter = new DefaultTopicFilter();
    filter.configure(Map.of());
    MirrorSourceConnector connector =
        new MirrorSourceConnector(new SourceAndTarget("main", "backup"), policy, filter, property -> true);
    for (String topic : topics) {
      System.out.printf("%s: named by topics %s, source %s, %s%n", topic, filter.shouldReplicateTopic(topic),
          policy.topicSource(topic), connector.shouldReplicateTopic(topic) ? "mirrored" : "not mirrored");
    }
  }
}
JAVA
javac -cp "$WORK/mirror/*" -d "$WORK/program" "$WORK/program/Mirrored.java"
seen=$(timeout 60 java -cp "$WORK/program:$WORK/mirror/*" org.apache.kafka.connect.mirror.Mirrored \
  orders orders.eu orders.backup backup-orders backup.orders agents.backup.orders)
verdict "orders: named by topics true, source null, mirrored
orders.eu: named by topics true, source orders, mirrored
orders.backup: named by topics true, source orders, mirrored
backup-orders: named by topics true, source null, mirrored
backup.orders: named by topics true, source backup, not mirrored
agents.backup.orders: named by topics true, source agents, not mirrored" "$seen"
