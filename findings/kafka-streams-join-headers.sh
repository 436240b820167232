#!/usr/bin/env bash
# surprise: Kafka Streams writes one key's result of a left join or of a closed window with the headers of another key's record.
# versions: Maven org.apache.kafka:kafka-streams:4.4.0, kafka-streams-test-utils:4.4.0
# expected: the headers of a record that the result is made of, as a join has them that finds its partner, and as suppress() keeps
#   them for a window's final result. Key, value and time of the result are those of such a record.
# does: a record without a partner, and a window with EmitStrategy.onWindowClose(), is handed on when time has passed it, which is
#   when some later record comes, and with that one's headers. The traceparent, the run or the tenant that a header names is
#   another's: traces show a step under a stranger's run, and a consumer that routes or audits by header puts it there.

. "$(dirname "$0")/lib/finding.sh"
java_packages streams org.apache.kafka:kafka-streams:4.4.0 org.apache.kafka:kafka-streams-test-utils:4.4.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Headers.java" <<'JAVA'
import java.nio.file.Files;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.test.TestRecord;

public class Headers {
  public static void main(String[] none) throws Exception {
    Serde<String> text = Serdes.String();
    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, String> calls = builder.stream("calls", Consumed.with(text, text));
    KStream<String, String> results = builder.stream("results", Consumed.with(text, text));
    calls
        .leftJoin(results, (call, result) -> call + " and " + result,
            JoinWindows.ofTimeDifferenceWithNoGrace(Duration.ofSeconds(5)), StreamJoined.with(text, text, text))
        .to("joined", Produced.with(text, text));
    calls.groupByKey(Grouped.with(text, text)).windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(5))).count()
        .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
        .toStream((window, count) -> window.key()).mapValues(count -> "count " + count)
        .to("suppressed", Produced.with(text, text));
    calls.groupByKey(Grouped.with(text, text)).windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(5)))
        .emitStrategy(EmitStrategy.onWindowClose()).count()
        .toStream((window, count) -> window.key()).mapValues(count -> "count " + count)
        .to("closed", Produced.with(text, text));
    Properties settings = new Properties();
    settings.put("application.id", "headers");
    settings.put("bootstrap.servers", "127.0.0.1:1"); // the driver asks no broker
    settings.put("state.dir", Files.createTempDirectory(java.nio.file.Path.of(System.getProperty("java.io.tmpdir")), "state").toString());
    try (TopologyTestDriver driver = new TopologyTestDriver(builder.build(), settings)) {
      pipe(driver, "calls", "first", 1_000);
      pipe(driver, "results", "first", 2_000);
      pipe(driver, "calls", "second", 10_000);
      driver.advanceWallClockTime(Duration.ofMinutes(1)); // both look once in a second for what time has passed
      pipe(driver, "calls", "third", 60_000);
      for (String topic : List.of("joined", "suppressed", "closed")) {
        driver.createOutputTopic(topic, new StringDeserializer(), new StringDeserializer()).readRecordsToList().forEach(
            record -> System.out.println(topic + " " + record.key() + ": " + record.value() + ", time " + record.timestamp()
                + ", run " + new String(record.headers().lastHeader("run").value())));
      }
    }
  }

  static void pipe(TopologyTestDriver driver, String topic, String key, long time) {
    TestInputTopic<String, String> input = driver.createInputTopic(topic, new StringSerializer(), new StringSerializer());
    RecordHeaders headers = new RecordHeaders();
    headers.add("run", ("run-of-" + key).getBytes());
    input.pipeInput(new TestRecord<>(key, topic, headers, time));
  }
}
JAVA
seen=$(TMPDIR=$WORK timeout 90 java -Djava.io.tmpdir="$WORK" -cp "$WORK/streams/*" "$WORK/Headers.java")
verdict "joined first: calls and results, time 2000, run run-of-first
joined second: calls and null, time 10000, run run-of-third
suppressed first: count 1, time 1000, run run-of-first
suppressed second: count 1, time 10000, run run-of-second
closed first: count 1, time 1000, run run-of-second
closed second: count 1, time 10000, run run-of-third" "$seen"
