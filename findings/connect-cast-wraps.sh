#!/usr/bin/env bash
# surprise: Kafka Connect's Cast refuses the text 4294967297 for an int32, and makes a 1 of the number 4294967297.
# versions: Maven org.apache.kafka:connect-transforms:4.4.0, connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: the same error for both, "out of range for requested data type": a value that does not fit has to go to the
#   dead letter queue, which Connect has for just such records.
# does: texts are parsed and checked, numbers are narrowed as a Java cast does: integers lose their upper bits,
#   floats beyond the range become the largest integer and NaN 0. Token counts, offsets and ids are then other ones, positive
#   and plausible, and no dead letter queue hears of it. As a float64, number and text alike lose the last bit of 2^53 + 1.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-transforms:4.4.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import java.util.Map;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.transforms.Cast;

public class Read {
  public static void main(String[] none) {
    Object[][] cases = {
      {"int32", 4294967297L}, {"int8", 300}, {"float64", 9007199254740993L}, {"int32", 1e10}, {"int64", Double.NaN}
    };
    for (Object[] one : cases) {
      for (Object value : new Object[] {one[1].toString(), one[1]}) {
        Cast.Value<SourceRecord> cast = new Cast.Value<>();
        cast.configure(Map.of("spec", "n:" + one[0]));
        String result;
        try {
          SourceRecord record = new SourceRecord(null, null, "topic", null, Map.of("n", value));
          result = ((Map<?, ?>) cast.apply(record).value()).get("n").toString();
        } catch (DataException error) {
          result = "refused";
        }
        System.out.println(one[0] + ", " + value.getClass().getSimpleName() + " " + value + ": " + result);
      }
    }
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/connect/*" "$WORK/Read.java")
verdict "int32, String 4294967297: refused
int32, Long 4294967297: 1
int8, String 300: refused
int8, Integer 300: 44
float64, String 9007199254740993: 9.007199254740992E15
float64, Long 9007199254740993: 9.007199254740992E15
int32, String 1.0E10: refused
int32, Double 1.0E10: 2147483647
int64, String NaN: refused
int64, Double NaN: 0" "$seen"
