#!/usr/bin/env bash
# surprise: Kafka Connect's ExtractField makes a tombstone of a record without the field, and HoistField a record of a tombstone.
# versions: Maven org.apache.kafka:connect-transforms:4.4.0, connect-json:4.4.0, connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: a tombstone stays one, as with InsertField, and a record stays one or is refused: on a compacted topic a null value
#   deletes its key. With a schema ExtractField does raise an error for a field that is not there.
# does: without a schema, as with JSON from most programs, the field's absence and a null in it are a null value, which the
#   converter writes as a tombstone: a record of another shape deletes what is stored under its key. HoistField puts the null
#   into its new field, so that {"line":null} stays on the topic and what was to be deleted is never forgotten.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-transforms:4.4.0 org.apache.kafka:connect-json:4.4.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.transforms.ExtractField;
import org.apache.kafka.connect.transforms.HoistField;
import org.apache.kafka.connect.transforms.InsertField;
import org.apache.kafka.connect.transforms.Transformation;

public class Read {
  static JsonConverter converter(boolean schemas) {
    JsonConverter converter = new JsonConverter();
    converter.configure(Map.of("schemas.enable", schemas), false);
    return converter;
  }

  static void show(Transformation<SourceRecord> transform, Map<String, String> settings, boolean schemas, String json) {
    transform.configure(settings);
    byte[] in = json == null ? null : json.getBytes(UTF_8);
    SchemaAndValue data = converter(schemas).toConnectData("runs", in);
    String result;
    try {
      SourceRecord record = new SourceRecord(null, null, "runs", null, data.schema(), data.value());
      SourceRecord made = transform.apply(record);
      byte[] out = converter(false).fromConnectData("runs", made.valueSchema(), made.value());
      result = out == null ? "tombstone" : new String(out, UTF_8);
    } catch (IllegalArgumentException error) {
      result = "refused: " + error.getMessage();
    }
    String name = transform.getClass().getEnclosingClass().getSimpleName();
    System.out.println(name + ", " + (json == null ? "tombstone" : schemas ? "schema and {\"id\":7}" : json) + ": " + result);
  }

  public static void main(String[] none) {
    Map<String, String> after = Map.of("field", "after");
    show(new ExtractField.Value<>(), after, false, "{\"after\":{\"id\":7}}");
    show(new ExtractField.Value<>(), after, false, "{\"id\":7}");
    show(new ExtractField.Value<>(), after, false, "{\"after\":null}");
    String schema = "{\"type\":\"struct\",\"fields\":[{\"field\":\"id\",\"type\":\"int32\"}]}";
    show(new ExtractField.Value<>(), after, true, "{\"schema\":" + schema + ",\"payload\":{\"id\":7}}");
    show(new HoistField.Value<>(), Map.of("field", "line"), false, null);
    show(new InsertField.Value<>(), Map.of("static.field", "from", "static.value", "a"), false, null);
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/connect/*" "$WORK/Read.java")
verdict 'ExtractField, {"after":{"id":7}}: {"id":7}
ExtractField, {"id":7}: tombstone
ExtractField, {"after":null}: tombstone
ExtractField, schema and {"id":7}: refused: Unknown field: after
HoistField, tombstone: {"line":null}
InsertField, tombstone: tombstone' "$seen"
