#!/usr/bin/env bash
# surprise: Kafka's own tools take the fraction of a second for a count of milliseconds: .5 is 5 ms, .123456 two minutes.
# versions: Apache Kafka 4.4.0 (kafka-tools 4.4.0); Maven org.apache.kafka:connect-transforms:4.4.0; PyPI kafka-python 3.0.12 writes
# expected: half a second for .5, as ISO 8601 has it, or an error. Go leaves zeros at the end of a fraction away, and Python
#   and PostgreSQL write microseconds.
# does: kafka-consumer-groups --to-datetime reads .5 as 5 ms, so the group reads half a second again, and .000456 as 456 ms, so
#   it never reads what lies between; six digits are refused from .001000 on. Connect's TimestampConverter refuses none: it dates a
#   time in microseconds up to 16 minutes and 40 seconds too late, also where the format says SSSSSS.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12
java_packages connect org.apache.kafka:connect-transforms:4.4.0 org.slf4j:slf4j-simple:1.7.36
broker_start
"$WORK/venv/bin/python" - <<'PYTHON'
import os

from kafka import KafkaProducer

producer = KafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"])
for tenth in range(10):  # offset 0 is of 12:00:00.000, offset 5 of 12:00:00.500
    producer.send("orders", b"value", partition=0, timestamp_ms=1_767_268_800_000 + 100 * tenth)
producer.flush(30)
PYTHON
cat >"$WORK/Times.java" <<'JAVA'
import java.time.Instant;
import java.util.Map;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.TimestampConverter;

class Times {
    public static void main(String[] arguments) {
        for (String digits : new String[] {"SSS", "SSSSSS"}) {
            var converter = new TimestampConverter.Value<SinkRecord>();
            converter.configure(Map.of("target.type", "unix", "format", "yyyy-MM-dd'T'HH:mm:ss." + digits + "X"));
            for (String text : new String[] {"12:00:00.500Z", "12:00:00.5Z", "12:00:00.123456Z"}) {
                var record = new SinkRecord("orders", 0, null, null, null, "2026-01-01T" + text, 0);
                System.out.println(digits + " " + text + " is " + Instant.ofEpochMilli((Long) converter.apply(record).value()));
            }
        }
    }
}
JAVA
seen=$(
  for fraction in 500 5 000456 123456; do
    echo "--to-datetime .$fraction: $(kafka_tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand \
      --bootstrap-server "$BOOTSTRAP" --group readers --topic orders --reset-offsets \
      --to-datetime "2026-01-01T12:00:00.$fraction" --dry-run 2>&1 | awk '/Unparseable/ {print "refused"; exit} $2 == "orders" {print "offset", $4}')"
  done
  timeout 60 java -cp "$WORK/connect/*" "$WORK/Times.java"
)
verdict '--to-datetime .500: offset 5
--to-datetime .5: offset 1
--to-datetime .000456: offset 5
--to-datetime .123456: refused
SSS 12:00:00.500Z is 2026-01-01T12:00:00.500Z
SSS 12:00:00.5Z is 2026-01-01T12:00:00.005Z
SSS 12:00:00.123456Z is 2026-01-01T12:02:03.456Z
SSSSSS 12:00:00.500Z is 2026-01-01T12:00:00.500Z
SSSSSS 12:00:00.5Z is 2026-01-01T12:00:00.005Z
SSSSSS 12:00:00.123456Z is 2026-01-01T12:02:03.456Z' "$seen"
