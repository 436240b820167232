package bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The job in Kafka Streams: the Processor API and one store, RocksDB or in memory, both with a changelog and the
 * record cache. The fold is that of programs/job.py.
 */
public final class Steps {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Set<String> TERMINAL = Set.of("completed", "failed", "cancelled", "expired");
    private static final String PREFIX = "thread.run.step."; // other events are of no step
    private static final Set<String> TEXTS = Set.of("arguments", "input", "logs", "output");

    private static final class Json implements Serializer<JsonNode>, Deserializer<JsonNode> {
        @Override
        public byte[] serialize(String topic, JsonNode value) {
            try {
                return value == null ? null : JSON.writeValueAsBytes(value);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        @Override
        public JsonNode deserialize(String topic, byte[] value) {
            try {
                return value == null ? null : JSON.readTree(value);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        @Override
        public void close() {}

        @Override
        public void configure(Map<String, ?> settings, boolean isKey) {}
    }

    private static final class Fold implements Processor<String, JsonNode, String, JsonNode> {
        private ProcessorContext<String, JsonNode> context;
        private KeyValueStore<String, JsonNode> store;
        private static boolean hasBegun; // of the process: there is one stream thread

        @Override
        public void init(ProcessorContext<String, JsonNode> given) {
            context = given;
            store = given.getStateStore("steps");
        }

        @Override
        public void process(Record<String, JsonNode> record) {
            if (!hasBegun) {
                hasBegun = true;
                System.out.println("{\"at\": \"begin\"}");
            }
            JsonNode event = record.value().get("event");
            if (!event.textValue().startsWith(PREFIX)) {
                return;
            }
            JsonNode data = record.value().get("data");
            String name = event.textValue().substring(PREFIX.length());
            String id = data.get("id").textValue();
            JsonNode old = store.get(id);
            if (name.equals("delta")) {
                delta(id, old, data);
                return;
            }
            String status = data.get("status").textValue();
            if (old != null && old.isTextual()) {
                if (!old.textValue().equals(status)) {
                    ObjectNode letter = JSON.createObjectNode();
                    letter.put("reason", "illegal_transition").put("id", id);
                    letter.put("from", old.textValue()).put("to", status);
                    letter.set("event", event);
                    letter.set("data", data);
                    context.forward(new Record<>(id, (JsonNode) letter, record.timestamp()), "dead");
                }
                return;
            }
            ObjectNode state = (ObjectNode) data;
            if (old != null) {
                JsonNode details = old.get("step_details");
                JsonNode stated = data.get("step_details").get("tool_calls");
                if (stated != null && !stated.isEmpty()) {
                    merge((ArrayNode) details.get("tool_calls"), stated, TERMINAL.contains(name));
                }
                state = (ObjectNode) old;
                state.setAll((ObjectNode) data);
                state.set("step_details", details);
            }
            if (TERMINAL.contains(status)) {
                store.put(id, TextNode.valueOf(status));
                context.forward(new Record<>(id, (JsonNode) state, record.timestamp()), status);
            } else {
                store.put(id, state);
            }
        }

        private void delta(String id, JsonNode old, JsonNode data) {
            if (old != null && old.isTextual()) {
                return;
            }
            ObjectNode state = (ObjectNode) old;
            if (state == null) {
                state = JSON.createObjectNode().put("id", id);
                state.putObject("step_details").put("type", "tool_calls").putArray("tool_calls");
            }
            JsonNode calls = data.get("delta").get("step_details").get("tool_calls");
            if (calls != null) {
                merge((ArrayNode) state.get("step_details").get("tool_calls"), calls, false);
            }
            store.put(id, state);
        }

        private static void merge(ArrayNode stored, JsonNode entries, boolean isLast) {
            for (int position = 0; position < entries.size(); position++) {
                JsonNode entry = entries.get(position);
                int index = isLast ? position : entry.get("index").intValue();
                while (stored.size() <= index) {
                    stored.addObject();
                }
                ObjectNode call = (ObjectNode) stored.get(index);
                JsonNode function = entry.get("function");
                if (function == null) {
                    put(call, entry, isLast);
                    continue;
                }
                for (String key : new String[] {"id", "type"}) {
                    if (entry.hasNonNull(key)) {
                        call.set(key, entry.get(key));
                    }
                }
                ObjectNode own = (ObjectNode) call.get("function");
                if (own == null) {
                    own = call.putObject("function").put("arguments", "");
                }
                for (Map.Entry<String, JsonNode> field : function.properties()) {
                    JsonNode value = field.getValue();
                    if (field.getKey().equals("arguments")) {
                        if (!value.isNull()) {
                            String before = isLast ? "" : own.get("arguments").textValue();
                            own.put("arguments", before + value.textValue());
                        }
                    } else if (!value.isNull() || !own.has(field.getKey())) {
                        own.set(field.getKey(), value);
                    }
                }
            }
        }

        private static void put(ObjectNode stored, JsonNode given, boolean isLast) {
            for (Map.Entry<String, JsonNode> field : given.properties()) {
                String key = field.getKey();
                JsonNode value = field.getValue();
                JsonNode before = stored.get(key);
                if (value.isNull()) {
                    if (before == null) {
                        stored.set(key, value);
                    }
                } else if (value.isObject()) {
                    put(before == null ? stored.putObject(key) : (ObjectNode) before, value, isLast);
                } else if (value.isArray()) {
                    merge(before == null ? stored.putArray(key) : (ArrayNode) before, value, isLast);
                } else if (before != null && !before.isNull() && !isLast && TEXTS.contains(key)) {
                    stored.put(key, before.textValue() + value.textValue());
                } else if (!key.equals("index")) {
                    stored.set(key, value);
                }
            }
        }
    }

    private static Properties settings() {
        Map<String, String> env = System.getenv();
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, env.get("BENCH_GROUP"));
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("BENCH_BOOTSTRAP"));
        p.put(StreamsConfig.STATE_DIR_CONFIG, env.get("BENCH_DIRECTORY"));
        boolean isExactlyOnce = env.get("BENCH_EXACTLY_ONCE").equals("1");
        p.put(
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            isExactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Integer.parseInt(env.getOrDefault("BENCH_COMMIT_MS", "100")));
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 128L << 20);
        p.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        p.put(StreamsConfig.consumerPrefix("max.poll.records"), 5000);
        p.put(StreamsConfig.consumerPrefix("fetch.max.wait.ms"), 50);
        p.put(StreamsConfig.producerPrefix("batch.size"), 256 << 10);
        p.put(StreamsConfig.producerPrefix("linger.ms"), 20);
        int session = Integer.parseInt(env.getOrDefault("BENCH_SESSION_MS", "0"));
        if (session > 0) {
            p.put(StreamsConfig.consumerPrefix("session.timeout.ms"), session);
            p.put(StreamsConfig.consumerPrefix("heartbeat.interval.ms"), session / 6);
        }
        return p;
    }

    private static Topology topology() {
        String store = System.getenv("BENCH_STORE");
        Serde<JsonNode> json = Serdes.serdeFrom(new Json(), new Json());
        Topology t = new Topology();
        t.addSource("in", Serdes.String().deserializer(), new Json(), System.getenv("BENCH_SOURCE"));
        t.addProcessor("fold", Fold::new, "in");
        t.addStateStore(
            Stores.keyValueStoreBuilder(
                    "memory".equals(store)
                        ? Stores.inMemoryKeyValueStore("steps")
                        : Stores.persistentKeyValueStore("steps"),
                    Serdes.String(),
                    json)
                .withCachingEnabled(),
            "fold");
        for (String kind : new String[] {"completed", "failed", "cancelled", "expired", "dead"}) {
            String topic = System.getenv("BENCH_GROUP") + "." + kind;
            t.addSink(kind, topic, Serdes.String().serializer(), new Json(), "fold");
        }
        return t;
    }

    public static void main(String[] args) throws InterruptedException {
        KafkaStreams streams = new KafkaStreams(topology(), settings());
        CountDownLatch stop = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            stop.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(20));
            stop.countDown();
        }));
        streams.start();
        stop.await();
    }
}
