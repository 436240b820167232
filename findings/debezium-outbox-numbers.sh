#!/usr/bin/env bash
# surprise: Debezium's outbox router sends an event with [10, 9.5] as an escaped text, and one with [{"n": 10}, {"n": 9.5}] not at all.
# versions: Maven io.debezium:debezium-core:3.4.0.Final; org.apache.kafka:connect-json:4.1.1, connect-transforms:4.1.1
# expected: JSON objects, as with [10, 20], since table.expand.json.payload is true: the documents say that the content is kept as it
#   is if it is missing or cannot be parsed. JSON has one type of number, and 10 and 9.5 may stand in one list.
# does: it takes the types that Java reads: int, long, double. If those in a list differ, readers of the topic get one JSON string
#   between objects. If they differ within the list's objects, or with an integer above 2^63 - 1, it keeps the text, too, but under
#   the schema of an object that it began; no converter writes such a record, and the connector stops. 1e400 becomes a text.

. "$(dirname "$0")/lib/finding.sh"
java_packages outbox io.debezium:debezium-core:3.4.0.Final org.apache.kafka:connect-json:4.1.1 \
  org.apache.kafka:connect-transforms:4.1.1 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Route.java" <<'JAVA'
import io.debezium.transforms.outbox.EventRouter;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;

public class Route {
  public static void main(String[] payloads) {
    Schema row = SchemaBuilder.struct().name("row").field("id", Schema.STRING_SCHEMA).field("aggregatetype", Schema.STRING_SCHEMA)
        .field("aggregateid", Schema.STRING_SCHEMA).field("type", Schema.STRING_SCHEMA)
        .field("payload", SchemaBuilder.string().name("io.debezium.data.Json").build()).build();
    Schema change = SchemaBuilder.struct().name("io.debezium.connector.postgresql.Envelope").version(1).field("after", row)
        .field("op", Schema.STRING_SCHEMA).field("ts_ms", Schema.INT64_SCHEMA).build();
    EventRouter<SourceRecord> router = new EventRouter<>();
    router.configure(Map.of("table.expand.json.payload", "true", "table.json.payload.null.behavior", "optional_bytes"));
    JsonConverter json = new JsonConverter();
    json.configure(Map.of("schemas.enable", "false"), false);
    for (String payload : payloads) {
      Struct after = new Struct(row).put("id", "1").put("aggregatetype", "run").put("aggregateid", "run-7").put("type", "step")
          .put("payload", payload);
      Struct value = new Struct(change).put("after", after).put("op", "c").put("ts_ms", 1L);
      SourceRecord sent = router.apply(new SourceRecord(Map.of(), Map.of(), "outbox", null, null, null, change, value));
      String written;
      try {
        written = new String(json.fromConnectData("run", sent.valueSchema(), sent.value()));
      } catch (DataException error) {
        written = error.getMessage();
      }
      System.out.println(payload + " -> " + written);
    }
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/outbox/*" "$WORK/Route.java" \
  '{"n":[10,20]}' '{"n":[10,9.5]}' '{"n":[10,3000000000]}' '{"all":[{"n":10},{"n":9.5}]}' '{"n":12345678901234567890}' '{"n":1e400}')
verdict "{\"n\":[10,20]} -> {\"n\":[10,20]}
{\"n\":[10,9.5]} -> \"{\\\"n\\\":[10,9.5]}\"
{\"n\":[10,3000000000]} -> \"{\\\"n\\\":[10,3000000000]}\"
{\"all\":[{\"n\":10},{\"n\":9.5}]} -> Invalid type for STRUCT: class java.lang.String
{\"n\":12345678901234567890} -> Invalid type for STRUCT: class java.lang.String
{\"n\":1e400} -> {\"n\":\"Infinity\"}" "$seen"
