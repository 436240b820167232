// Writes the lines of a plan (tests/compat/plan.py) with kafka-go, which has no transactions.
// arguments: bootstrap topic codec plain plan
package main

import (
	"context"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

func main() {
	codecs := map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}
	writer := &kafka.Writer{Addr: kafka.TCP(os.Args[1]), Topic: os.Args[2], Balancer: kafka.Murmur2Balancer{},
		Compression: codecs[os.Args[3]], RequiredAcks: kafka.RequireAll, BatchBytes: 8388608, BatchTimeout: 10 * time.Millisecond}
	var messages []kafka.Message
	for _, line := range plan(os.Args[5]) {
		message := kafka.Message{Key: line.key, Value: line.value}
		if line.hasTime {
			message.Time = time.UnixMilli(line.timestamp)
		}
		for _, header := range line.headers {
			message.Headers = append(message.Headers, kafka.Header{Key: string(header.name), Value: header.value})
		}
		messages = append(messages, message)
	}
	must(writer.WriteMessages(context.Background(), messages...))
	must(writer.Close())
}
