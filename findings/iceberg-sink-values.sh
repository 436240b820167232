#!/usr/bin/env bash
# surprise: Iceberg's Kafka Connect sink stores the number 4294967297 as the int 1, the text "1" as false, and 00:00+02:00 as 00:00.
# versions: Maven org.apache.iceberg:iceberg-kafka-connect:1.12.0, org.apache.kafka:connect-api:4.4.0, connect-json:4.4.0
# expected: an error for a value that the column has no room for, as for the texts "4294967297" and "1.9" and for true in an int.
#   A time with an offset is an instant, whatever clock it was read from.
# does: numbers are narrowed as a Java cast does: upper bits and fractions are lost, and NaN is 0. Any text but true is false, "yes"
#   and "1" among them. A timestamp without zone keeps the clock that a text states and drops its offset,
#   so that one moment stated at +02:00 and at Z is two, while a count of milliseconds is stored in UTC. A count of seconds is taken for
#   milliseconds.

. "$(dirname "$0")/lib/finding.sh"
java_packages iceberg org.apache.iceberg:iceberg-kafka-connect:1.12.0 org.apache.kafka:connect-api:4.4.0 org.apache.kafka:connect-json:4.4.0
cat >"$WORK/Values.java" <<'JAVA'
package org.apache.iceberg.connect.data; // the converter is the package's own

import java.util.Map;
import org.apache.iceberg.Schema;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.connect.IcebergSinkConfig;
import org.apache.iceberg.inmemory.InMemoryCatalog;
import org.apache.iceberg.types.Type;
import org.apache.iceberg.types.Types;

public class Values {
  static final InMemoryCatalog CATALOG = new InMemoryCatalog();

  static void store(Type type, Object... values) {
    var column = Types.NestedField.optional(1, "n", type);
    var table = CATALOG.createTable(TableIdentifier.of("runs", "table" + CATALOG.listTables(Namespace.of("runs")).size()), new Schema(column));
    var settings = Map.of("topics", "runs", "iceberg.tables", "runs.steps", "iceberg.catalog.type", "rest");
    var converter = new RecordConverter(table, new IcebergSinkConfig(settings));
    for (Object value : values) {
      String stored;
      try {
        stored = converter.convert(Map.of("n", value)).get(0).toString();
      } catch (RuntimeException error) {
        stored = "refused";
      }
      System.out.println(type + ", " + value.getClass().getSimpleName() + " " + value + ": " + stored);
    }
  }

  public static void main(String[] none) {
    CATALOG.initialize("memory", Map.of());
    CATALOG.createNamespace(Namespace.of("runs"));
    store(Types.IntegerType.get(), 4294967297L, "4294967297", 1.9, "1.9", Double.NaN, true);
    store(Types.LongType.get(), 1e300);
    store(Types.BooleanType.get(), "true", "1", "yes", 1);
    store(Types.TimestampType.withoutZone(), "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00", 1767218400000L, 1767218400);
    store(Types.TimestampType.withZone(), "2026-01-01T00:00:00+02:00");
  }
}
JAVA
seen=$(
  mkdir "$WORK/classes"
  javac -cp "$WORK/iceberg/*" -d "$WORK/classes" "$WORK/Values.java"
  timeout 60 java -cp "$WORK/classes:$WORK/iceberg/*" org.apache.iceberg.connect.data.Values 2>/dev/null
)
verdict 'int, Long 4294967297: 1
int, String 4294967297: refused
int, Double 1.9: 1
int, String 1.9: refused
int, Double NaN: 0
int, Boolean true: refused
long, Double 1.0E300: 9223372036854775807
boolean, String true: true
boolean, String 1: false
boolean, String yes: false
boolean, Integer 1: refused
timestamp, String 2026-01-01T00:00:00Z: 2026-01-01T00:00
timestamp, String 2026-01-01T00:00:00+02:00: 2026-01-01T00:00
timestamp, Long 1767218400000: 2025-12-31T22:00
timestamp, Integer 1767218400: 1970-01-21T10:53:38.400
timestamptz, String 2026-01-01T00:00:00+02:00: 2026-01-01T00:00+02:00' "$seen"
