#!/usr/bin/env bash
# surprise: Spring for Apache Kafka takes the quotes off a text header such as an ETag, and keeps the last of a header that is there twice.
# versions: Maven org.springframework.kafka:spring-kafka:4.1.1, tools.jackson.core:jackson-databind:3.1.1 (kafka-clients 4.2.1, Spring 7.0.9)
# expected: the text that was given, as both sides know that it is one: the mapper writes a text as it is, and names its type in a header of
#   its own. Of a record that is passed on, all headers: Kafka keeps as many of one name as there are.
# does: the mapper of the default converter takes a text that begins with a quote for JSON when it reads: "v1" is v1 for the listener and
#   in the record that it passes on, so that the next comparison of tags fails; if it is no JSON, the listener is given bytes. Of
#   two traces or steps that a batch names in one header each, the first is gone after a relay.

. "$(dirname "$0")/lib/finding.sh"
java_packages spring org.springframework.kafka:spring-kafka:4.1.1 tools.jackson.core:jackson-databind:3.1.1 org.slf4j:slf4j-nop:2.0.17
cat >"$WORK/Relay.java" <<'JAVA'
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.springframework.kafka.support.JsonKafkaHeaderMapper;
import org.springframework.messaging.MessageHeaders;

public class Relay {
  static final JsonKafkaHeaderMapper MAPPER = new JsonKafkaHeaderMapper();

  static Map<String, Object> read(Headers record) {
    Map<String, Object> read = new HashMap<>();
    MAPPER.toHeaders(record, read);
    return read;
  }

  static Headers written(Map<String, Object> headers) {
    Headers record = new RecordHeaders();
    MAPPER.fromHeaders(new MessageHeaders(headers), record);
    return record;
  }

  static String values(Headers record, String name) {
    StringBuilder values = new StringBuilder();
    record.headers(name).forEach(header -> values.append(" ").append(new String(header.value())));
    return values.toString();
  }

  static String shown(Object value) {
    return value instanceof byte[] bytes ? "bytes " + new String(bytes) : "text " + value;
  }

  public static void main(String[] texts) {
    for (String text : texts) {
      Headers record = written(Map.of("name", text));
      Map<String, Object> read = read(record);
      System.out.println(text + ": written" + values(record, "name") + ", read as " + shown(read.get("name"))
          + ", passed on as" + values(written(read), "name"));
    }
    Headers record = new RecordHeaders().add("step", "first".getBytes()).add("step", "second".getBytes());
    System.out.println("steps" + values(record, "step") + ", passed on as" + values(written(read(record)), "step"));
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/spring/*" "$WORK/Relay.java" 'v1' '"v1"' '"Refund" was asked for')
verdict 'v1: written v1, read as text v1, passed on as v1
"v1": written "v1", read as text v1, passed on as v1
"Refund" was asked for: written "Refund" was asked for, read as bytes "Refund" was asked for, passed on as "Refund" was asked for
steps first second, passed on as second' "$seen"
