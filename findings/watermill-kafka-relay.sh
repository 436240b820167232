#!/usr/bin/env bash
# surprise: A Watermill relay writes each record without its key and time, and one of two headers of a name, in changing order.
# versions: Go github.com/ThreeDotsLabs/watermill-kafka/v3 v3.0.6, github.com/IBM/sarama v1.61.1
# expected: the record that came. A relay gives the message that it received to the publisher, and both use the DefaultMarshaler.
# does: the key is not in the message, so that the copy has none: records of one run are spread over all partitions, and a compacted
#   topic refuses them. The record's time is dropped, too, so that the copies are dated when they are written. Headers pass through a
#   Go map: of a name that occurs twice the last remains, null becomes empty, and their order is another each time (sorted below).
#   The subscriber leaves key and time in the message's context, from which a marshaler of one's own can set them.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka@v3.0.6 github.com/IBM/sarama@v1.61.1 <<'GO'
package main

import (
	"fmt"
	"sort"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
)

func show(name string, key, value []byte, at time.Time, headers []sarama.RecordHeader) {
	fmt.Printf("%s: key %s, value %s, ", name, text(key), text(value))
	if at.IsZero() {
		fmt.Println("no time")
	} else {
		fmt.Println("time", at.UTC().Format(time.RFC3339))
	}
	for _, header := range headers {
		fmt.Printf("  %s: %s\n", header.Key, text(header.Value))
	}
}

func text(bytes []byte) string {
	if bytes == nil {
		return "null"
	}
	return fmt.Sprintf("[%s]", bytes)
}

func main() {
	came := sarama.ConsumerMessage{Topic: "runs", Key: []byte("run-7"), Value: []byte("finished"), Timestamp: time.Unix(1767225600, 0)}
	headers := []sarama.RecordHeader{
		{Key: []byte("hop"), Value: []byte("1")}, {Key: []byte("hop"), Value: []byte("2")}, {Key: []byte("note"), Value: nil},
	}
	for at := range headers {
		came.Headers = append(came.Headers, &headers[at])
	}
	show("came", came.Key, came.Value, came.Timestamp, headers)
	marshaler := kafka.DefaultMarshaler{}
	message, err := marshaler.Unmarshal(&came)
	if err != nil {
		panic(err)
	}
	written, err := marshaler.Marshal("copies", message)
	if err != nil {
		panic(err)
	}
	var key []byte
	if written.Key != nil {
		key, _ = written.Key.Encode()
	}
	value, _ := written.Value.Encode()
	sort.Slice(written.Headers, func(a, b int) bool { return string(written.Headers[a].Key) < string(written.Headers[b].Key) })
	show("goes", key, value, written.Timestamp, written.Headers)
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "came: key [run-7], value [finished], time 2026-01-01T00:00:00Z
  hop: [1]
  hop: [2]
  note: null
goes: key null, value [finished], no time
  _watermill_message_uuid: []
  hop: [2]
  note: []" "$seen"
