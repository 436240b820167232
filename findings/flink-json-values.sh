#!/usr/bin/env bash
# surprise: Flink's JSON format reads 1 as false, a price that is too long as null, and 1.9 as 1, without a parse error.
# versions: Maven org.apache.flink:flink-json:2.3.0, flink-table-common:2.3.0, flink-core:2.3.0, flink-table-runtime:2.3.0
# expected: an error, or with json.ignore-parse-errors a null that was asked for. The option is off here, as it is by default, and
#   the documents map BOOLEAN to a JSON boolean and DECIMAL to a number; what does not fit an INT is refused, and "1.9" is, too.
# does: any value but true is false, the 1 that MySQL's connectors write for a truth value and "yes" among them. A DECIMAL(10, 2)
#   is null from eleven digits on, of which a sum by key tells nothing. Fractions of an INT or BIGINT are cut off, those of a
#   SMALLINT refused, and 2^53 + 1 written as a float comes out as 2^53. A FLOAT of 1e300 is written again as a text, "Infinity".

. "$(dirname "$0")/lib/finding.sh"
java_packages flink org.apache.flink:flink-json:2.3.0 org.apache.flink:flink-table-common:2.3.0 \
  org.apache.flink:flink-core:2.3.0 org.apache.flink:flink-table-runtime:2.3.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.formats.common.TimestampFormat;
import org.apache.flink.formats.json.JsonFormatOptions.MapNullKeyMode;
import org.apache.flink.formats.json.JsonParserRowDataDeserializationSchema;
import org.apache.flink.formats.json.JsonRowDataSerializationSchema;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;

public class Read {
  static void read(DataType type, String... values) throws Exception {
    RowType row = (RowType) DataTypes.ROW(DataTypes.FIELD("n", type)).getLogicalType();
    var reader = new JsonParserRowDataDeserializationSchema(
        row, TypeInformation.of(RowData.class), false, false, TimestampFormat.ISO_8601, null);
    var writer = new JsonRowDataSerializationSchema(row, TimestampFormat.ISO_8601, MapNullKeyMode.FAIL, "null", false, false);
    reader.open(null);
    writer.open(null);
    for (String value : values) {
      String seen;
      try {
        seen = new String(writer.serialize(reader.deserialize(("{\"n\":" + value + "}").getBytes())));
      } catch (java.io.IOException error) {
        seen = "refused";
      }
      System.out.println(type + " " + value + ": " + seen);
    }
  }

  public static void main(String[] none) throws Exception {
    read(DataTypes.BOOLEAN(), "true", "1", "\"yes\"");
    read(DataTypes.DECIMAL(10, 2), "12345678.90", "123456789.00");
    read(DataTypes.INT(), "1.9", "\"1.9\"", "4294967297");
    read(DataTypes.SMALLINT(), "1.9");
    read(DataTypes.BIGINT(), "9007199254740993", "9007199254740993.0");
    read(DataTypes.FLOAT(), "1e300", "\"x\"");
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/flink/*" "$WORK/Read.java" 2>"$WORK/java.log") || cat "$WORK/java.log" >&2
verdict "BOOLEAN true: {\"n\":true}
BOOLEAN 1: {\"n\":false}
BOOLEAN \"yes\": {\"n\":false}
DECIMAL(10, 2) 12345678.90: {\"n\":12345678.9}
DECIMAL(10, 2) 123456789.00: {\"n\":null}
INT 1.9: {\"n\":1}
INT \"1.9\": refused
INT 4294967297: refused
SMALLINT 1.9: refused
BIGINT 9007199254740993: {\"n\":9007199254740993}
BIGINT 9007199254740993.0: {\"n\":9007199254740992}
FLOAT 1e300: {\"n\":\"Infinity\"}
FLOAT \"x\": refused" "$seen"
