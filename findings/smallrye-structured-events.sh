#!/usr/bin/env bash
# surprise: SmallRye's Kafka connector, which Quarkus uses, drops all extensions of a structured CloudEvent, and its data_base64.
# versions: Maven io.smallrye.reactive:smallrye-reactive-messaging-kafka:4.33.0; cloudevents-kafka and cloudevents-json-jackson 4.0.1
#   of io.cloudevents for comparison
# expected: the attributes and data of the event, whichever mode it was sent in: the connector's option cloud-events reads both. By
#   the Kafka binding a structured event has all its attributes in the record's value, extensions among them, and by the
#   JSON format bytes stand there as data_base64.
# does: of the value it reads the attributes that it knows by name, so that traceparent, a tenant or a sequence number are gone,
#   whereas those of the same event in binary mode are there. An event of bytes has the payload null, as a tombstone has. The
#   event's own partitionkey is replaced by the record's key. The SDK for Java reads all of it.

. "$(dirname "$0")/lib/finding.sh"
java_packages smallrye io.smallrye.reactive:smallrye-reactive-messaging-kafka:4.33.0 io.cloudevents:cloudevents-kafka:4.0.1 \
  io.cloudevents:cloudevents-json-jackson:4.0.1 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.CloudEventDeserializer;
import io.smallrye.reactive.messaging.ce.CloudEventMetadata;
import io.smallrye.reactive.messaging.kafka.IncomingKafkaRecord;
import io.smallrye.reactive.messaging.kafka.fault.DeserializerWrapper;
import java.util.HexFormat;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Read {
  static void read(String what, Headers headers, byte[] value) {
    // as the connector does with the option cloud-events
    var wrapper = new DeserializerWrapper<Object>(ByteArrayDeserializer.class.getName(), false, null, (error, key) -> {}, true, true);
    wrapper.configure(Map.of(), false);
    Object parsed = wrapper.deserialize("runs", headers, value);
    var record = new ConsumerRecord<>("runs", 0, 0L, 0L, TimestampType.CREATE_TIME, 0, 0, "run-7", parsed, headers, Optional.empty());
    var message = new IncomingKafkaRecord<>(record, "channel", 0, null, null, true);
    Object payload = message.getPayload();
    String data = payload instanceof byte[] bytes ? new String(bytes) : String.valueOf(payload);
    var read = message.getMetadata(CloudEventMetadata.class).get();
    System.out.println(what + ", SmallRye: data " + data + ", extensions " + new TreeMap<>(read.getExtensions()));
    CloudEvent event = new CloudEventDeserializer().deserialize("runs", headers, value);
    var extensions = new TreeMap<String, Object>();
    for (String name : new TreeSet<>(event.getExtensionNames())) extensions.put(name, event.getExtension(name));
    byte[] bytes = event.getData().toBytes();
    String shown = what.contains("bytes") ? HexFormat.of().formatHex(bytes) : new String(bytes);
    System.out.println(what + ", SDK: data " + shown + ", extensions " + extensions);
  }

  public static void main(String[] none) {
    Headers binary = new RecordHeaders().add("content-type", "application/json".getBytes());
    String[] attributes = {
      "specversion", "1.0", "id", "1", "source", "/runs", "type", "step", "tenant", "a", "sequence", "12", "partitionkey", "run"
    };
    StringBuilder json = new StringBuilder("{");
    for (int i = 0; i < attributes.length; i += 2) {
      binary.add("ce_" + attributes[i], attributes[i + 1].getBytes());
      json.append('"').append(attributes[i]).append("\":\"").append(attributes[i + 1]).append("\",");
    }
    read("binary", binary, "{\"n\":1}".getBytes());
    Headers structured = new RecordHeaders().add("content-type", "application/cloudevents+json".getBytes());
    read("structured", structured, (json + "\"datacontenttype\":\"application/json\",\"data\":{\"n\":1}}").getBytes());
    read("structured bytes", structured, (json + "\"datacontenttype\":\"image/png\",\"data_base64\":\"iVBORw==\"}").getBytes());
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/smallrye/*" "$WORK/Read.java" 2>"$WORK/java.log") || cat "$WORK/java.log" >&2
verdict "binary, SmallRye: data {\"n\":1}, extensions {kafkatopic=runs, partitionkey=run, sequence=12, tenant=a}
binary, SDK: data {\"n\":1}, extensions {partitionkey=run, sequence=12, tenant=a}
structured, SmallRye: data {\"n\":1}, extensions {kafkatopic=runs, partitionkey=run-7}
structured, SDK: data {\"n\":1}, extensions {partitionkey=run, sequence=12, tenant=a}
structured bytes, SmallRye: data null, extensions {kafkatopic=runs, partitionkey=run-7}
structured bytes, SDK: data 89504e47, extensions {partitionkey=run, sequence=12, tenant=a}" "$seen"
