#!/usr/bin/env bash
# surprise: Jackson's protobuf format writes the integer 5 into a double field as 2.5E-323, and 1.9 into a fixed64 as its bits.
# versions: Maven com.fasterxml.jackson.dataformat:jackson-dataformat-protobuf:2.23.0, jackson-databind:2.23.0; PyPI protobuf
#   7.36.2 for comparison
# expected: 5.0, as JSON has one type of number and 5 is how a price of 5.0 stands in many documents; or an error, which the same
#   writer raises for 1.9 in an int64 field and for text in any number.
# does: the number's bits are written without a look at the field: a document with "price":5 stores next to nothing, -1 is not a
#   number, and true is 4.9E-324. A negative int in an int64 field becomes one near 2^32. What protobuf's own libraries write for
#   -1 in an int32 field, in ten bytes as the format has it, the reader refuses. No schema or reader can tell afterwards.

. "$(dirname "$0")/lib/finding.sh"
java_packages jackson com.fasterxml.jackson.dataformat:jackson-dataformat-protobuf:2.23.0 com.fasterxml.jackson.core:jackson-databind:2.23.0
python_packages protobuf==7.36.2
cat >"$WORK/Write.java" <<'JAVA'
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.protobuf.ProtobufMapper;
import com.fasterxml.jackson.dataformat.protobuf.schema.ProtobufSchema;
import com.fasterxml.jackson.dataformat.protobuf.schema.ProtobufSchemaLoader;
import java.util.HexFormat;

public class Write {
  static final ProtobufMapper PROTOBUF = new ProtobufMapper();

  static ProtobufSchema schema(String type) throws Exception {
    return ProtobufSchemaLoader.std.parse("syntax = \"proto3\"; message Step { " + type + " value = 1; }");
  }

  static void write(String type, String value) throws Exception {
    JsonNode step = new ObjectMapper().readTree("{\"value\":" + value + "}");
    try {
      byte[] bytes = PROTOBUF.writer(schema(type)).writeValueAsBytes(step);
      Object read = PROTOBUF.readerFor(JsonNode.class).with(schema(type)).readValue(bytes);
      System.out.println(type + " " + value + ": " + HexFormat.of().formatHex(bytes) + ", read as " + read);
    } catch (Exception error) {
      System.out.println(type + " " + value + ": " + error.getMessage().split(" \\(")[0]);
    }
  }

  public static void main(String[] written) throws Exception {
    for (String value : new String[] {"5.0", "5", "-1", "true"}) write("double", value);
    write("fixed64", "1.9");
    write("int64", "1.9");
    write("int64", "-1");
    try {
      System.out.println("int32 -1 of protobuf: " + PROTOBUF.readerFor(JsonNode.class).with(schema("int32"))
          .readValue(HexFormat.of().parseHex(written[0])));
    } catch (Exception error) {
      System.out.println("int32 -1 of protobuf: " + error.getMessage());
    }
  }
}
JAVA
written=$("$WORK/venv/bin/python" -c 'from google.protobuf.wrappers_pb2 import Int32Value; print(Int32Value(value=-1).SerializeToString().hex())')
seen=$(timeout 60 java -cp "$WORK/jackson/*" "$WORK/Write.java" "$written")
verdict "double 5.0: 090000000000001440, read as {\"value\":5.0}
double 5: 090500000000000000, read as {\"value\":2.5E-323}
double -1: 09ffffffffffffffff, read as {\"value\":\"NaN\"}
double true: 090100000000000000, read as {\"value\":4.9E-324}
fixed64 1.9: 09666666666666fe3f, read as {\"value\":4611235658464650854}
int64 1.9: Can not write \`double\` value for 'value'
int64 -1: 08ffffffff0f, read as {\"value\":4294967295}
int32 -1 of protobuf: Too long tag VInt: fifth byte 0xff
 at [Source: (byte[])[11 bytes]; byte offset: #6]" "$seen"
