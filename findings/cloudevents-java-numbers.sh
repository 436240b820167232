#!/usr/bin/env bash
# surprise: The CloudEvents SDK for Java passes the number 1e400 on as the text "Infinity", and other numbers with 17 digits.
# versions: Maven io.cloudevents:cloudevents-kafka:4.0.1, cloudevents-json-jackson:4.0.1; Go
#   github.com/cloudevents/sdk-go/v2 v2.16.2 for comparison
# expected: the data of a structured event as it came, when a program reads it and writes it to Kafka: the SDK does not know what
#   the data means. JSON gives numbers no limit of digits, and the SDK for Go passes them on as they were written.
# does: the data is parsed into a tree of doubles and written anew: a price with 20 digits is another, 1.10 is 1.1 and 10000000.0
#   is 1.0E7, so that a digest or signature of the data fails, and what is beyond a double becomes a text. Integers keep all
#   digits. No error says so, and the reading side sees a valid event.

. "$(dirname "$0")/lib/finding.sh"
java_packages events io.cloudevents:cloudevents-kafka:4.0.1 io.cloudevents:cloudevents-json-jackson:4.0.1 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Pass.java" <<'JAVA'
import io.cloudevents.CloudEvent;
import io.cloudevents.core.format.EventFormat;
import io.cloudevents.core.provider.EventFormatProvider;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.KafkaMessageFactory;

public class Pass {
  public static void main(String[] events) {
    EventFormat json = EventFormatProvider.getInstance().resolveFormat(JsonFormat.CONTENT_TYPE);
    for (String event : events) {
      CloudEvent read = json.deserialize(event.getBytes());
      System.out.println("java: " + new String((byte[]) KafkaMessageFactory.createWriter("topic").writeBinary(read).value()));
    }
  }
}
JAVA
go_program github.com/cloudevents/sdk-go/v2@v2.16.2 <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/cloudevents/sdk-go/v2/event"
)

func main() {
	for _, text := range os.Args[1:] {
		read := event.New()
		if err := read.UnmarshalJSON([]byte(text)); err != nil {
			panic(err)
		}
		fmt.Println("go:", string(read.Data()))
	}
}
GO
events=()
for number in 12345678901234567890 0.12345678901234567890 1.10 10000000.0 1e400; do
  events+=('{"specversion":"1.0","id":"1","source":"/runs","type":"step","datacontenttype":"application/json","data":{"n":'"$number"'}}')
done
seen=$(
  timeout 60 java -cp "$WORK/events/*" "$WORK/Pass.java" "${events[@]}"
  timeout 60 "$WORK/go/program" "${events[@]}"
)
verdict "java: {\"n\":12345678901234567890}
java: {\"n\":0.12345678901234568}
java: {\"n\":1.1}
java: {\"n\":1.0E7}
java: {\"n\":\"Infinity\"}
go: {\"n\":12345678901234567890}
go: {\"n\":0.12345678901234567890}
go: {\"n\":1.10}
go: {\"n\":10000000.0}
go: {\"n\":1e400}" "$seen"
