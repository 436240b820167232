// Reads the outcome topics from their beginning to their present end and prints each step's last revision:
// id, revision and topic, separated by tabs, in the order of the ids.
//
//   java -cp 'libs/*' LatestSteps.java 127.0.0.1:9092 run-steps.completed run-steps.failed run-steps.cancelled run-steps.expired
//
// Needs Java 17 and kafka-clients. Exit 1: a record's value does not have the digest of its header.
import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class LatestSteps {
    record Latest(long revision, String topic) {}

    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", args[0], "isolation.level", "read_committed", "enable.auto.commit", false);
        Map<String, Latest> latest = new TreeMap<>();
        boolean wrong = false;
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (String topic : Arrays.asList(args).subList(1, args.length)) {
                consumer.partitionsFor(topic).forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            // With read_committed: the last stable offsets.
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<String, byte[]> found : consumer.poll(Duration.ofSeconds(1))) {
                    if (!sha256(found.value()).equals(header(found, "runstep-digest"))) {
                        System.err.println(found.topic() + " " + found.partition() + " " + found.offset() + ": wrong digest");
                        wrong = true;
                        continue;
                    }
                    long revision = Long.parseLong(header(found, "runstep-revision"));
                    latest.merge(found.key(), new Latest(revision, found.topic()),
                        (old, now) -> now.revision() > old.revision() ? now : old);
                }
            }
        }
        latest.forEach((id, step) -> System.out.println(id + "\t" + step.revision() + "\t" + step.topic()));
        System.exit(wrong ? 1 : 0);
    }

    private static String header(ConsumerRecord<?, ?> found, String name) {
        return new String(found.headers().lastHeader(name).value());
    }

    private static String sha256(byte[] value) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(value));
    }
}
