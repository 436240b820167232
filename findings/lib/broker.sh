# shellcheck shell=bash
# One Apache Kafka 4.4.0 broker on 127.0.0.1, of Maven Central's jars (Java 17 or newer on the path).
# Sourced after finding.sh; $BOOTSTRAP is its address, `kafka_tool CLASS ARGUMENTS...` runs one of Kafka's own tools.
BROKER_SETTINGS=() # SETTING=VALUE, beside those below

# Starts the broker and waits until it serves.
broker_start() {
  local port controller
  java_packages kafka org.apache.kafka:kafka_2.13:4.4.0 org.apache.kafka:kafka-tools:4.4.0 org.slf4j:slf4j-simple:1.7.36
  read -r port controller < <(python3 - <<'PYTHON'
import socket
both = [socket.socket() for _ in range(2)]
for one in both:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in both))
PYTHON
  )
  BOOTSTRAP=127.0.0.1:$port
  export BOOTSTRAP
  cat >"$WORK/broker.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$WORK/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.threads=1
SETTINGS
  if ((${#BROKER_SETTINGS[@]})); then printf '%s\n' "${BROKER_SETTINGS[@]}" >>"$WORK/broker.properties"; fi
  kafka_tool kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$WORK/broker.properties" >"$WORK/format.log" 2>&1
  : >"$WORK/broker.log"
  java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$WORK/kafka/*" kafka.Kafka "$WORK/broker.properties" >>"$WORK/broker.log" 2>&1 &
  BACKGROUND+=($!)
  for _ in {1..600}; do
    if grep -q "Kafka Server started" "$WORK/broker.log"; then return 0; fi
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  tail -n 30 "$WORK/broker.log" >&2
  return 1
}

# One of Kafka's command line tools: kafka_tool CLASS ARGUMENTS...
kafka_tool() {
  timeout 60 java -Xmx256m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$WORK/kafka/*" "$@"
}
