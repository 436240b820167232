#!/usr/bin/env bash
# surprise: Debezium's TimezoneConverter moves a time that is a number in the other direction than one that is a text.
# versions: Maven io.debezium:debezium-core:3.4.0.Final; org.apache.kafka:connect-json:4.1.1, connect-transforms:4.1.1
# expected: for converted.timezone=+05:30 the wall clock of midnight UTC there, 05:30, in each field: the documents take the fields
#   to be in UTC and say that their values are converted to the target time zone. A number that stands for an instant might
#   as well stay as it is, but not become another time in any reading.
# does: io.debezium.time.Timestamp, MicroTimestamp, NanoTimestamp and Connect's own Timestamp, which columns without a zone have,
#   are taken for times of the target zone and converted to UTC: midnight becomes 18:30 of the day before, eleven hours off what
#   the text beside it says. Near a change to or from summer time the text has an offset that the zone has not at that moment,
#   since it is looked up with the time in UTC as if it were local.

. "$(dirname "$0")/lib/finding.sh"
java_packages zones io.debezium:debezium-core:3.4.0.Final org.apache.kafka:connect-json:4.1.1 \
  org.apache.kafka:connect-transforms:4.1.1 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Convert.java" <<'JAVA'
import io.debezium.transforms.TimezoneConverter;
import java.time.Instant;
import java.time.ZoneId;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.source.SourceRecord;

public class Convert {
  static final Schema ROW = SchemaBuilder.struct().name("server.db.run.Value")
      .field("text", SchemaBuilder.string().name("io.debezium.time.ZonedTimestamp").build())
      .field("millis", SchemaBuilder.int64().name("io.debezium.time.Timestamp").build())
      .field("micros", SchemaBuilder.int64().name("io.debezium.time.MicroTimestamp").build())
      .field("connect", Timestamp.SCHEMA).build();
  static final Schema SOURCE = SchemaBuilder.struct().name("source").field("table", Schema.STRING_SCHEMA).build();
  static final Schema CHANGE = SchemaBuilder.struct().name("server.db.run.Envelope").version(1).field("after", ROW)
      .field("source", SOURCE).field("op", Schema.STRING_SCHEMA).build();

  static void convert(String zone, String time) {
    TimezoneConverter<SourceRecord> converter = new TimezoneConverter<>();
    converter.configure(Map.of("converted.timezone", zone));
    Instant at = Instant.parse(time);
    Struct row = new Struct(ROW).put("text", time).put("millis", at.toEpochMilli()).put("micros", at.toEpochMilli() * 1000)
        .put("connect", java.util.Date.from(at));
    Struct change = new Struct(CHANGE).put("after", row).put("source", new Struct(SOURCE).put("table", "run")).put("op", "c");
    SourceRecord record = new SourceRecord(Map.of(), Map.of(), "server.db.run", null, null, null, CHANGE, change);
    Struct converted = ((Struct) converter.apply(record).value()).getStruct("after");
    System.out.println(zone + " " + time + ": text " + converted.get("text") + ", millis "
        + Instant.ofEpochMilli(converted.getInt64("millis")) + ", micros "
        + Instant.ofEpochMilli(converted.getInt64("micros") / 1000) + ", connect "
        + ((java.util.Date) converted.get("connect")).toInstant());
  }

  public static void main(String[] none) {
    convert("+05:30", "2026-01-01T00:00:00Z");
    convert("Europe/Berlin", "2026-01-01T00:00:00Z");
    convert("Europe/Berlin", "2026-10-25T01:30:00Z");
    System.out.println("java.time: " + Instant.parse("2026-10-25T01:30:00Z").atZone(ZoneId.of("Europe/Berlin")).toOffsetDateTime());
  }
}
JAVA
seen=$(timeout 60 java -Duser.timezone=UTC -cp "$WORK/zones/*" "$WORK/Convert.java")
verdict "+05:30 2026-01-01T00:00:00Z: text 2026-01-01T05:30:00+05:30, millis 2025-12-31T18:30:00Z, micros 2025-12-31T18:30:00Z, connect 2025-12-31T18:30:00Z
Europe/Berlin 2026-01-01T00:00:00Z: text 2026-01-01T01:00:00+01:00, millis 2025-12-31T23:00:00Z, micros 2025-12-31T23:00:00Z, connect 2025-12-31T23:00:00Z
Europe/Berlin 2026-10-25T01:30:00Z: text 2026-10-25T03:30:00+02:00, millis 2026-10-24T23:30:00Z, micros 2026-10-24T23:30:00Z, connect 2026-10-24T23:30:00Z
java.time: 2026-10-25T02:30+01:00" "$seen"
