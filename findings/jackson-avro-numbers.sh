#!/usr/bin/env bash
# surprise: Jackson's Avro format writes 4294967297 into an int field as 1, 1.9 into a long as 1, and the text "x" into an int as 120.
# versions: Maven com.fasterxml.jackson.dataformat:jackson-dataformat-avro:2.22.0, jackson-databind:2.22.0,
#   org.apache.avro:avro:1.12.2 reads
# expected: an error, as the same writer raises one for the text "12" in an int field, for true in one and for a decimal with
#   three digits in a field of scale 2: an Avro schema says what a field can hold, which is why it stands in front of a topic.
# does: a number is narrowed as a Java cast does: integers lose their upper bits, fractions are cut off, also those of a time in
#   seconds, 2^63 becomes the lowest long, and a text of one character is its code. Ids, token counts and prices in what the
#   schema promises are other ones, and valid.

. "$(dirname "$0")/lib/finding.sh"
java_packages jackson com.fasterxml.jackson.dataformat:jackson-dataformat-avro:2.22.0 com.fasterxml.jackson.core:jackson-databind:2.22.0 \
  org.apache.avro:avro:1.12.2 org.slf4j:slf4j-nop:2.0.17
cat >"$WORK/Write.java" <<'JAVA'
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.avro.AvroMapper;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;

public class Write {
  static final AvroMapper AVRO = new AvroMapper();

  static void write(String type, String value) throws Exception {
    String schema = "{\"type\":\"record\",\"name\":\"Step\",\"fields\":[{\"name\":\"value\",\"type\":" + type + "}]}";
    JsonNode step = new ObjectMapper().readTree("{\"value\":" + value + "}");
    try {
      byte[] bytes = AVRO.writer(AVRO.schemaFrom(schema)).writeValueAsBytes(step);
      GenericRecord read = new GenericDatumReader<GenericRecord>(new Schema.Parser().parse(schema))
          .read(null, DecoderFactory.get().binaryDecoder(bytes, null));
      System.out.println(type + " " + value + ": " + read.get("value"));
    } catch (Exception error) {
      System.out.println(type + " " + value + ": refused");
    }
  }

  public static void main(String[] none) throws Exception {
    for (String value : new String[] {"1", "4294967297", "9223372036854775808", "1.9", "\"x\"", "\"12\"", "true"}) write("\"int\"", value);
    for (String value : new String[] {"9007199254740993", "9223372036854775808", "1.9", "1e19"}) write("\"long\"", value);
    write("{\"type\":\"long\",\"logicalType\":\"timestamp-millis\"}", "1767225600.5");
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/jackson/*" "$WORK/Write.java")
verdict "\"int\" 1: 1
\"int\" 4294967297: 1
\"int\" 9223372036854775808: 0
\"int\" 1.9: 1
\"int\" \"x\": 120
\"int\" \"12\": refused
\"int\" true: refused
\"long\" 9007199254740993: 9007199254740993
\"long\" 9223372036854775808: -9223372036854775808
\"long\" 1.9: 1
\"long\" 1e19: 9223372036854775807
{\"type\":\"long\",\"logicalType\":\"timestamp-millis\"} 1767225600.5: 1767225600" "$seen"
