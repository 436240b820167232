#!/usr/bin/env bash
# surprise: Kafka Connect's JsonConverter reads the NaN and the infinity that it wrote itself as 0.
# versions: Maven org.apache.kafka:connect-json:4.4.0, connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: the number that was written, or an error: the schema, which is in each record, says double, and a converter should
#   read what it writes. A score, a ratio or a rate that could not be computed is not 0.
# does: JSON has no such numbers, so that they are written as the texts "NaN" and "Infinity". When they are read, the schema asks
#   for a double, and a text is taken for 0.0, as is any text where a number has to be; no dead letter queue hears of it.
#   Without schemas the value comes back as a text.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-json:4.4.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.json.JsonConverter;

public class Read {
  public static void main(String[] none) {
    for (boolean schemas : new boolean[] {true, false}) {
      JsonConverter converter = new JsonConverter();
      converter.configure(Map.of("schemas.enable", schemas), false);
      for (double number : new double[] {0.25, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY}) {
        byte[] json = converter.fromConnectData("scores", Schema.FLOAT64_SCHEMA, number);
        Object back = converter.toConnectData("scores", json).value();
        String text = new String(json, UTF_8);
        System.out.println(text + " is read as " + back.getClass().getSimpleName() + " " + back);
      }
    }
  }
}
JAVA
seen=$(timeout 60 java -cp "$WORK/connect/*" "$WORK/Read.java")
verdict '{"schema":{"type":"double","optional":false},"payload":0.25} is read as Double 0.25
{"schema":{"type":"double","optional":false},"payload":"NaN"} is read as Double 0.0
{"schema":{"type":"double","optional":false},"payload":"Infinity"} is read as Double 0.0
{"schema":{"type":"double","optional":false},"payload":"-Infinity"} is read as Double 0.0
0.25 is read as Double 0.25
"NaN" is read as String NaN
"Infinity" is read as String Infinity
"-Infinity" is read as String -Infinity' "$seen"
