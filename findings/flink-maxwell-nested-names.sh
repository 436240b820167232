#!/usr/bin/env bash
# surprise: Flink's Maxwell format takes back a row with the id null if a JSON column that changed has a field "id", too.
# versions: Maven org.apache.flink:flink-json:2.3.0, flink-table-common:2.3.0, flink-core:2.3.0, flink-table-runtime:2.3.0
# expected: before the update the row's id was 7. Maxwell lists in "old" the columns that changed, with what they were, and Flink fills
#   the others from "data": so it does for total below.
# does: it asks for a column's name anywhere below "old", not among the columns alone. {"item": {"id": 3}} is a former value of item,
#   and so the row's own id, which is not null in "data", counts as changed and becomes null in the row that is retracted. A sum per id
#   keeps the old row, and has a second, negative one under null. Of a field with another name, as in the third update, nothing is lost.

. "$(dirname "$0")/lib/finding.sh"
java_packages flink org.apache.flink:flink-json:2.3.0 org.apache.flink:flink-table-common:2.3.0 org.apache.flink:flink-core:2.3.0 \
  org.apache.flink:flink-table-runtime:2.3.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Updates.java" <<'JAVA'
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.flink.api.common.functions.util.ListCollector;
import org.apache.flink.formats.common.TimestampFormat;
import org.apache.flink.formats.json.maxwell.MaxwellJsonDeserializationSchema;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.DataType;

public class Updates {
  public static void main(String[] none) throws Exception {
    DataType item = DataTypes.ROW(DataTypes.FIELD("id", DataTypes.INT()), DataTypes.FIELD("count", DataTypes.INT()));
    DataType row = DataTypes.ROW(
        DataTypes.FIELD("id", DataTypes.INT()), DataTypes.FIELD("total", DataTypes.INT()), DataTypes.FIELD("item", item));
    var format = new MaxwellJsonDeserializationSchema(
        row, List.of(), InternalTypeInfo.of(row.getLogicalType()), false, TimestampFormat.ISO_8601);
    format.open(null);
    String data = "{'id': 7, 'total': 20, 'item': {'id': 4, 'count': 2}}";
    for (String old : List.of("{'total': 10}", "{'item': {'id': 3, 'count': 2}}", "{'item': {'count': 1}}")) {
      System.out.println("old: " + old);
      String update = "{'type': 'update', 'data': " + data + ", 'old': " + old + "}";
      List<RowData> rows = new java.util.ArrayList<>();
      format.deserialize(update.replace('\'', '"').getBytes(StandardCharsets.UTF_8), new ListCollector<>(rows));
      rows.forEach(each -> System.out.println("  " + each));
    }
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/flink/*" "$WORK/Updates.java" 2>/dev/null)
verdict "old: {'total': 10}
  -U(7,10,+I(4,2))
  +U(7,20,+I(4,2))
old: {'item': {'id': 3, 'count': 2}}
  -U(null,20,+I(3,2))
  +U(7,20,+I(4,2))
old: {'item': {'count': 1}}
  -U(7,20,+I(null,1))
  +U(7,20,+I(4,2))" "$seen"
