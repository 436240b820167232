// Writes the lines of a plan (tests/compat/plan.py) with sarama.
// arguments: bootstrap topic codec plain|transactions plan
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
)

func main() {
	codecs := map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}
	transactions := os.Args[4] == "transactions"
	config := sarama.NewConfig()
	config.Version = sarama.V2_5_0_0
	config.Producer.Compression = codecs[os.Args[3]]
	config.Producer.Partitioner = sarama.NewMurmur2Partitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Idempotent = true
	config.Producer.MaxMessageBytes = 8388608
	config.Net.MaxOpenRequests = 1
	if transactions {
		config.Producer.Transaction.ID = fmt.Sprintf("compat-%d", time.Now().UnixNano())
	}
	producer, err := sarama.NewSyncProducer([]string{os.Args[1]}, config)
	must(err)
	for _, chunk := range chunks(plan(os.Args[5]), transactions) {
		if transactions {
			must(producer.BeginTxn())
		}
		var messages []*sarama.ProducerMessage
		for _, line := range chunk.lines {
			message := &sarama.ProducerMessage{Topic: os.Args[2]}
			if line.key != nil {
				message.Key = sarama.ByteEncoder(line.key)
			}
			if line.value != nil {
				message.Value = sarama.ByteEncoder(line.value)
			}
			if line.hasTime {
				message.Timestamp = time.UnixMilli(line.timestamp)
			}
			for _, header := range line.headers {
				message.Headers = append(message.Headers, sarama.RecordHeader{Key: header.name, Value: header.value})
			}
			messages = append(messages, message)
		}
		must(producer.SendMessages(messages))
		if transactions && chunk.committed {
			must(producer.CommitTxn())
		} else if transactions {
			must(producer.AbortTxn())
		}
	}
	must(producer.Close())
}
