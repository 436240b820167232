// Writes the lines of a plan (tests/compat/plan.py) with Apache Kafka's own client.
// arguments: bootstrap topic codec plain|transactions plan
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

class Produce {
    static byte[] bytes(String field) {
        return field.equals("-") ? null : Base64.getDecoder().decode(field.substring(1));
    }

    static void send(Producer<byte[], byte[]> producer, String topic, List<String> lines) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (String line : lines) {
            String[] fields = line.split("\t", -1);
            Long timestamp = fields[2].equals("-") ? null : Long.valueOf(fields[2]);
            ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(topic, null, timestamp, bytes(fields[0]), bytes(fields[1]));
            for (String header : fields[3].isEmpty() ? new String[0] : fields[3].split(",")) {
                String[] pair = header.split(":");
                record.headers().add(new RecordHeader(new String(bytes(pair[0]), StandardCharsets.UTF_8), bytes(pair[1])));
            }
            sent.add(producer.send(record));
        }
        producer.flush();
        for (Future<RecordMetadata> one : sent) one.get();
    }

    public static void main(String[] arguments) throws Exception {
        boolean transactions = arguments[3].equals("transactions");
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("compression.type", arguments[2]);
        settings.put("max.request.size", "8388608");
        if (transactions) settings.put("transactional.id", "compat-" + UUID.randomUUID());
        List<String> lines = Files.readAllLines(Path.of(arguments[4]));
        try (Producer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (!transactions) {
                send(producer, arguments[1], lines);
                return;
            }
            producer.initTransactions();
            for (int from = 0, number = 0; from < lines.size(); from += 50, number++) {
                List<String> chunk = lines.subList(from, Math.min(from + 50, lines.size()));
                if (number % 5 == 4) {
                    producer.beginTransaction();
                    send(producer, arguments[1], chunk);
                    producer.abortTransaction();
                }
                producer.beginTransaction();
                send(producer, arguments[1], chunk);
                producer.commitTransaction();
            }
        }
    }
}
