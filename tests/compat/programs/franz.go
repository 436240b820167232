// Writes the lines of a plan (tests/compat/plan.py) with franz-go.
// arguments: bootstrap topic codec plain|transactions plan
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	transactions := os.Args[4] == "transactions"
	options := []kgo.Opt{kgo.SeedBrokers(os.Args[1]), kgo.DefaultProduceTopic(os.Args[2]),
		kgo.ProducerBatchCompression(codecs[os.Args[3]]), kgo.ProducerBatchMaxBytes(8388608)}
	if transactions {
		options = append(options, kgo.TransactionalID(fmt.Sprintf("compat-%d", time.Now().UnixNano())))
	}
	client, err := kgo.NewClient(options...)
	must(err)
	ctx := context.Background()
	for _, chunk := range chunks(plan(os.Args[5]), transactions) {
		if transactions {
			must(client.BeginTransaction())
		}
		var records []*kgo.Record
		for _, line := range chunk.lines {
			record := &kgo.Record{Key: line.key, Value: line.value}
			if line.hasTime {
				record.Timestamp = time.UnixMilli(line.timestamp)
			}
			for _, header := range line.headers {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(header.name), Value: header.value})
			}
			records = append(records, record)
		}
		must(client.ProduceSync(ctx, records...).FirstErr())
		if transactions {
			must(client.EndTransaction(ctx, kgo.TransactionEndTry(chunk.committed)))
		}
	}
	client.Close()
}
