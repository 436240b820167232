#!/usr/bin/env bash
# surprise: The CloudEvents SDK for Go makes a record that is no JSON of an event's bytes, and takes application/vnd.run+json for no JSON.
# versions: Go github.com/cloudevents/sdk-go/v2 v2.16.2, github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2 v2.16.2,
#   github.com/IBM/sarama v1.61.1; PyPI cloudevents 2.2.0 reads and writes for comparison
# expected: the data that was sent, in either mode. By CloudEvents' JSON format (3.1) bytes are data_base64 in a structured event, and data
#   is a JSON value, no text, where datacontenttype says JSON: subtype json, or a name that ends with +json.
# does: of an event that came in binary mode it no longer knows that the data is bytes, and writes them as they are between two quotes: a
#   relay that makes structured events of a topic's binary ones leaves records that readers of JSON refuse or patch. JSON of a
#   kind of one's own becomes a text with JSON in it, and such an event of another SDK, with an object, is refused.

. "$(dirname "$0")/lib/finding.sh"
python_packages cloudevents==2.2.0
go_program github.com/cloudevents/sdk-go/v2@v2.16.2 github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2@v2.16.2 \
  github.com/IBM/sarama@v1.61.1 <<'GO'
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/IBM/sarama"
	kafka "github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
)

// The value of a record is given in base64; "structured" or, for a binary event, its datacontenttype says how it is read.
func main() {
	value, err := base64.StdEncoding.DecodeString(os.Args[2])
	if err != nil {
		panic(err)
	}
	names := [][2]string{{"content-type", "application/cloudevents+json"}}
	if os.Args[1] != "structured" {
		names = [][2]string{{"ce_specversion", "1.0"}, {"ce_id", "1"}, {"ce_type", "step"}, {"ce_source", "/runs"}, {"content-type", os.Args[1]}}
	}
	record := &sarama.ConsumerMessage{Value: value}
	for _, name := range names {
		record.Headers = append(record.Headers, &sarama.RecordHeader{Key: []byte(name[0]), Value: []byte(name[1])})
	}
	message := kafka.NewMessageFromConsumerMessage(record)
	if os.Args[1] == "structured" {
		event, err := binding.ToEvent(context.Background(), message)
		if err != nil {
			fmt.Println("refused")
		} else {
			fmt.Printf("%s\n", event.Data())
		}
		return
	}
	sent := &sarama.ProducerMessage{}
	if err := kafka.WriteProducerMessage(binding.WithForceStructured(context.Background()), message, sent); err != nil {
		panic(err)
	}
	text, err := sent.Value.Encode()
	if err != nil {
		panic(err)
	}
	fmt.Println(base64.StdEncoding.EncodeToString(text))
}
GO
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK/go/program" <<'PYTHON'
import base64
import subprocess
import sys

from cloudevents.core.bindings import kafka


def go(kind, value):
    return subprocess.run([sys.argv[1], kind, base64.b64encode(value)], check=True, capture_output=True).stdout.strip()


def headers(kind):
    return {"ce_specversion": b"1.0", "ce_id": b"1", "ce_type": b"step", "ce_source": b"/runs", "content-type": kind.encode()}


STRUCTURED = {"content-type": b"application/cloudevents+json"}
for kind, value in (
    ("application/json", b'{"step":7}'),
    ("application/vnd.run+json", b'{"step":7}'),
    ("application/octet-stream", b"\xff\x00"),
):
    python = kafka.to_structured_event(kafka.from_binary_event(kafka.KafkaMessage(headers(kind), None, value))).value
    for relay, record in (("Go", base64.b64decode(go(kind, value))), ("Python", python)):
        try:
            read = kafka.from_structured_event(kafka.KafkaMessage(STRUCTURED, None, record)).get_data()
        except UnicodeDecodeError as error:
            read = f"UnicodeDecodeError: {error.reason}"
        print(f"{kind} by a relay in {relay}, read by Python: {read!r}")
    print(f"{kind} by a relay in Python, read by Go: {go('structured', python)!r}")
PYTHON
)
verdict "application/json by a relay in Go, read by Python: {'step': 7}
application/json by a relay in Python, read by Python: {'step': 7}
application/json by a relay in Python, read by Go: b'{\"step\": 7}'
application/vnd.run+json by a relay in Go, read by Python: '{\"step\":7}'
application/vnd.run+json by a relay in Python, read by Python: {'step': 7}
application/vnd.run+json by a relay in Python, read by Go: b'refused'
application/octet-stream by a relay in Go, read by Python: 'UnicodeDecodeError: invalid start byte'
application/octet-stream by a relay in Python, read by Python: b'\\xff\\x00'
application/octet-stream by a relay in Python, read by Go: b'\\xff\\x00'" "$seen"
