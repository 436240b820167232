#!/usr/bin/env bash
# surprise: Kafka Connect's default header converter cuts, rounds and dates texts: 10:30 becomes 10, 007 becomes 7.
# versions: Maven org.apache.kafka:connect-api:4.4.0 (kafka-clients 4.4.0)
# expected: the header that came. Connect reads and writes headers with SimpleHeaderConverter unless header.converter says
#   otherwise, and a sink or a copy that touches no header has no reason to change one; ids, versions and times are texts.
# does: it guesses a type from the text, and writes the guess back. Of what begins with a number and goes on behind ":" or ","
#   the rest is gone, numbers lose zeros, signs and digits (a decimal becomes 32 bits wide if it is not
#   too large for that), a time at midnight becomes a date. header.converter=...ByteArrayConverter leaves headers alone.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-api:4.4.0 org.slf4j:slf4j-simple:1.7.36
cat >"$WORK/Headers.java" <<'JAVA'
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.connect.storage.SimpleHeaderConverter;

class Headers {
    public static void main(String[] arguments) {
        SimpleHeaderConverter converter = new SimpleHeaderConverter();
        converter.configure(Map.of());
        String[] texts = {"step-7", "10:30", "7,8", "007", "+5", "1.10", "12345678.25", "2026-11-29T00:00:00.000Z"};
        for (String text : texts) {
            var read = converter.toConnectHeader("orders", "id", text.getBytes(StandardCharsets.UTF_8));
            byte[] written = converter.fromConnectHeader("orders", "id", read.schema(), read.value());
            System.out.println(text + " -> " + new String(written, StandardCharsets.UTF_8));
        }
    }
}
JAVA
seen=$(timeout 60 java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$WORK/connect/*" "$WORK/Headers.java")
verdict 'step-7 -> step-7
10:30 -> 10
7,8 -> 7
007 -> 7
+5 -> 5
1.10 -> 1.1
12345678.25 -> 1.2345678E7
2026-11-29T00:00:00.000Z -> 2026-11-29' "$seen"
