#!/usr/bin/env bash
# surprise: Kafka Connect's Flatten and ReplaceField make one field of two and drop empty objects, if the record has no schema.
# versions: Maven org.apache.kafka:connect-transforms:4.4.0, connect-json:4.4.0, connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: an error, as the same record with a schema gets, so that errors.tolerance and the dead letter queue can act on it.
# does: the flattened name a.b may be the name of a field that is there, and a new name of ReplaceField, too. The value that is put
#   in last is kept, the other is gone: which one, the order of a hash table decides. An empty object is flattened to no
#   field at all, so that {"usage":{}} and {} become the same.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-transforms:4.4.0 org.apache.kafka:connect-json:4.4.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Map;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.errors.SchemaBuilderException;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.transforms.Flatten;
import org.apache.kafka.connect.transforms.ReplaceField;
import org.apache.kafka.connect.transforms.Transformation;

public class Read {
  static void show(Transformation<SourceRecord> transform, String schema, String json) {
    transform.configure(transform instanceof Flatten ? Map.of() : Map.of("renames", "run:id,key:id"));
    JsonConverter reads = new JsonConverter();
    reads.configure(Map.of("schemas.enable", schema != null), false);
    JsonConverter writes = new JsonConverter();
    writes.configure(Map.of("schemas.enable", false), false);
    String in = schema == null ? json : "{\"schema\":" + schema + ",\"payload\":" + json + "}";
    SchemaAndValue data = reads.toConnectData("runs", in.getBytes(UTF_8));
    String result;
    try {
      SourceRecord made = transform.apply(new SourceRecord(null, null, "runs", null, data.schema(), data.value()));
      result = new String(writes.fromConnectData("runs", made.valueSchema(), made.value()), UTF_8);
    } catch (SchemaBuilderException error) {
      result = "refused";
    }
    String name = transform.getClass().getEnclosingClass().getSimpleName();
    System.out.println(name + (schema == null ? ", no schema, " : ", schema, ") + json + ": " + result);
  }

  static String field(String name, String type) {
    return "{\"field\":\"" + name + "\"," + type + "}";
  }

  static String struct(String... fields) {
    return "\"type\":\"struct\",\"fields\":[" + String.join(",", fields) + "]";
  }

  public static void main(String[] none) {
    String number = "\"type\":\"int64\"";
    String nested = "{" + struct(field("a", struct(field("b", number))), field("a.b", number)) + "}";
    String flat = "{" + struct(field("run", number), field("id", number)) + "}";
    for (String schema : new String[] {nested, null}) {
      show(new Flatten.Value<>(), schema, "{\"a\":{\"b\":1},\"a.b\":2}");
    }
    show(new Flatten.Value<>(), null, "{\"id\":7,\"usage\":{}}");
    for (String schema : new String[] {flat, null}) {
      show(new ReplaceField.Value<>(), schema, "{\"run\":1,\"id\":2}");
    }
    show(new ReplaceField.Value<>(), null, "{\"key\":1,\"id\":2}");
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/connect/*" "$WORK/Read.java")
verdict 'Flatten, schema, {"a":{"b":1},"a.b":2}: refused
Flatten, no schema, {"a":{"b":1},"a.b":2}: {"a.b":2}
Flatten, no schema, {"id":7,"usage":{}}: {"id":7}
ReplaceField, schema, {"run":1,"id":2}: refused
ReplaceField, no schema, {"run":1,"id":2}: {"id":2}
ReplaceField, no schema, {"key":1,"id":2}: {"id":1}' "$seen"
