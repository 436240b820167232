#!/usr/bin/env bash
# surprise: Kafka Connect's JsonConverter turns an integer above 2^63 - 1 into another, mostly negative one, without an error.
# versions: Maven org.apache.kafka:connect-json:4.4.0, connect-api:4.4.0
# expected: the number, or an error that errors.tolerance and the dead letter queue can act on. JSON bounds no integer, and
#   unsigned 64-bit ids and hashes go beyond that bound.
# does: without schemas every integer is read as an INT64 by cutting it to its low 64 bits. A copy that touches nothing writes
#   -1 for 18446744073709551615, and two ids that are 2^64 apart become one.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-json:4.4.0 org.apache.kafka:connect-api:4.4.0 org.slf4j:slf4j-simple:1.7.36
cat >"$WORK/Copy.java" <<'JAVA'
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.connect.json.JsonConverter;

class Copy {
    public static void main(String[] arguments) {
        JsonConverter converter = new JsonConverter();
        converter.configure(Map.of("schemas.enable", "false"), false);
        String[] ids = {"9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551623", "7"};
        for (String id : ids) {
            String value = "{\"id\":" + id + "}";
            var read = converter.toConnectData("orders", value.getBytes(StandardCharsets.UTF_8));
            byte[] written = converter.fromConnectData("orders", read.schema(), read.value());
            System.out.println(value + " -> " + new String(written, StandardCharsets.UTF_8));
        }
    }
}
JAVA
seen=$(timeout 60 java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$WORK/connect/*" "$WORK/Copy.java")
verdict '{"id":9223372036854775807} -> {"id":9223372036854775807}
{"id":9223372036854775808} -> {"id":-9223372036854775808}
{"id":18446744073709551615} -> {"id":-1}
{"id":18446744073709551623} -> {"id":7}
{"id":7} -> {"id":7}' "$seen"
