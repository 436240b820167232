#!/usr/bin/env bash
# surprise: Kafka Connect makes the schema's default of a null that a record states, and its Flatten whatever is configured.
# versions: Maven org.apache.kafka:connect-transforms:4.4.0, connect-json:4.4.0, connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: {"id":1,"note":null}, the record that came. The field is optional, so that null is a value of its own, such as an answer that
#   was withdrawn; the default is what stands for a field that is not there. No transform below is asked to touch it.
# does: with the settings as they are, transforms that copy a record and the JsonConverter put the default in the null's place.
#   replace.null.with.default=false, which has to be set for each of them and each converter, ends it, but Flatten knows no such setting
#   and replaces all the same. The null cannot be told from a stated "none" afterwards.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-transforms:4.4.0 org.apache.kafka:connect-json:4.4.0 org.apache.kafka:connect-api:4.4.0 \
  org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Nulls.java" <<'JAVA'
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.transforms.Cast;
import org.apache.kafka.connect.transforms.Flatten;
import org.apache.kafka.connect.transforms.InsertField;
import org.apache.kafka.connect.transforms.MaskField;
import org.apache.kafka.connect.transforms.ReplaceField;
import org.apache.kafka.connect.transforms.Transformation;

public class Nulls {
  static String written(Object schema, Object value, boolean replaced) {
    var converter = new JsonConverter();
    converter.configure(Map.of("schemas.enable", false, "replace.null.with.default", replaced), false);
    return new String(converter.fromConnectData("runs", (Schema) schema, value)).replace('"', '\'');
  }

  record Named(Transformation<SourceRecord> transform, Map<String, String> settings) {}

  public static void main(String[] none) {
    Schema note = SchemaBuilder.string().optional().defaultValue("none").build();
    Schema schema = SchemaBuilder.struct().field("id", Schema.INT32_SCHEMA).field("note", note).build();
    Struct value = new Struct(schema).put("id", 1).put("note", null);
    System.out.println("JsonConverter: " + written(schema, value, true));
    System.out.println("JsonConverter, set to false: " + written(schema, value, false));
    for (boolean setting : List.of(true, false)) {
      System.out.println(setting ? "transforms as they are, the converter set to false:" : "all set to false:");
      for (var each : List.of(
          new Named(new Cast.Value<>(), Map.of("spec", "id:int64")),
          new Named(new InsertField.Value<>(), Map.of("static.field", "from", "static.value", "a")),
          new Named(new MaskField.Value<>(), Map.of("fields", "id")),
          new Named(new ReplaceField.Value<>(), Map.of("renames", "id:run")),
          new Named(new Flatten.Value<>(), Map.of()))) {
        var settings = new HashMap<String, Object>(each.settings());
        if (!setting) {
          settings.put("replace.null.with.default", false);
        }
        each.transform().configure(settings);
        SourceRecord after = each.transform().apply(new SourceRecord(null, null, "runs", null, null, schema, value));
        String name = each.transform().getClass().getEnclosingClass().getSimpleName();
        System.out.println("  " + name + ": " + written(after.valueSchema(), after.value(), false));
      }
    }
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/connect/*" "$WORK/Nulls.java" 2>/dev/null)
verdict "JsonConverter: {'id':1,'note':'none'}
JsonConverter, set to false: {'id':1,'note':null}
transforms as they are, the converter set to false:
  Cast: {'id':1,'note':'none'}
  InsertField: {'id':1,'note':'none','from':'a'}
  MaskField: {'id':0,'note':'none'}
  ReplaceField: {'run':1,'note':'none'}
  Flatten: {'id':1,'note':'none'}
all set to false:
  Cast: {'id':1,'note':null}
  InsertField: {'id':1,'note':null,'from':'a'}
  MaskField: {'id':0,'note':null}
  ReplaceField: {'run':1,'note':null}
  Flatten: {'id':1,'note':'none'}" "$seen"
