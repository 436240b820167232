#!/usr/bin/env bash
# surprise: Kafka Connect's file sink with the JsonConverter writes {id=7, note=null}: neither JSON nor possible to undo.
# versions: Maven org.apache.kafka:connect-file:4.3.1, connect-json:4.3.1, connect-runtime:4.3.1
# expected: a JSON document in each line, as the values that came in are JSON and the converter is called JsonConverter. Kafka's
#   own connect-standalone.properties sets it, and the quickstart runs this sink with that file.
# does: the converter turns bytes into Java objects, and the sink writes each object's toString. Maps lose quotes and colons,
#   strings with "=" or ", " in them cannot be told from fields, and null is the word.

. "$(dirname "$0")/lib/finding.sh"
java_packages connect org.apache.kafka:connect-file:4.3.1 org.apache.kafka:connect-json:4.3.1 \
  org.apache.kafka:connect-runtime:4.3.1 org.slf4j:slf4j-simple:1.7.36
cat >"$WORK/Sink.java" <<'JAVA'
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.file.FileStreamSinkTask;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.sink.SinkRecord;

class Sink {
    public static void main(String[] arguments) {
        JsonConverter converter = new JsonConverter();
        converter.configure(Map.of("schemas.enable", "false"), false);
        FileStreamSinkTask task = new FileStreamSinkTask();
        task.start(Map.of("file", arguments[0]));
        String[] values = {"{\"id\":7,\"note\":null}", "{\"note\":\"a, id=8\"}", "{\"note\":\"a\",\"id\":8}", "\"text\""};
        for (String value : values) {
            var both = converter.toConnectData("orders", value.getBytes(StandardCharsets.UTF_8));
            task.put(List.of(new SinkRecord("orders", 0, null, null, both.schema(), both.value(), 0)));
        }
        task.stop();
    }
}
JAVA
timeout 60 java -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$WORK/connect/*" "$WORK/Sink.java" "$WORK/out.txt"
verdict '{note=null, id=7}
{note=a, id=8}
{note=a, id=8}
text' "$(cat "$WORK/out.txt")"
