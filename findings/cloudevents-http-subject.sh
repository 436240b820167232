#!/usr/bin/env bash
# surprise: A CloudEvent with the subject "run 7" arrives over HTTP as "run%207" if Python sends and Go or JavaScript reads.
# versions: PyPI cloudevents 2.2.0; npm cloudevents 10.0.0 (on node 20 or newer); Go github.com/cloudevents/sdk-go/v2 v2.16.2
# expected: the subject and the id that were sent. CloudEvents' HTTP binding (3.1.3.2) has spaces, double quotes, percent signs
#   and all but printable ASCII percent-encoded in header values, and has receivers decode them.
# does: Python's SDK encodes and decodes, those of Go and JavaScript do neither, so that an event changes between the two kinds,
#   the other way, too: "50%25" of Go is "50%" in Python. Ids by which a receiver leaves out repeats and subjects that become
#   keys of records are other ones. (For Go reported as cloudevents/sdk-go issue 1331.)

. "$(dirname "$0")/lib/finding.sh"
python_packages cloudevents==2.2.0
node_packages cloudevents@10.0.0
cat >"$WORK/python" <<'PYTHON'
import json
import sys

from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

if sys.argv[1] == "write":
    event = CloudEvent({"id": sys.argv[2], "type": "placed", "source": "/runs", "subject": sys.argv[3]}, {})
    print(json.dumps(http.to_binary_event(event).headers))
else:
    event = http.from_binary_event(http.HTTPMessage(json.loads(sys.argv[2]), b"{}"))
    print(json.dumps([event.get_id(), event.get_subject()]))
PYTHON
cat >"$WORK/node/node.mjs" <<'NODE'
import { CloudEvent, HTTP } from "cloudevents";

const [, , mode, first, subject] = process.argv;
if (mode === "write") {
  const event = new CloudEvent({ id: first, type: "placed", source: "/runs", subject, data: {} });
  console.log(JSON.stringify(HTTP.binary(event).headers));
} else {
  const event = HTTP.toEvent({ headers: JSON.parse(first), body: "{}" });
  console.log(JSON.stringify([event.id, event.subject]));
}
NODE
go_program github.com/cloudevents/sdk-go/v2@v2.16.2 <<'GO'
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	protocol "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func main() {
	request, _ := http.NewRequest("POST", "http://127.0.0.1/", strings.NewReader("{}"))
	lines := json.NewEncoder(os.Stdout)
	lines.SetEscapeHTML(false)
	if os.Args[1] == "write" {
		event := cloudevents.NewEvent()
		event.SetID(os.Args[2])
		event.SetType("placed")
		event.SetSource("/runs")
		event.SetSubject(os.Args[3])
		if err := protocol.WriteRequest(context.Background(), binding.ToMessage(&event), request); err != nil {
			panic(err)
		}
		headers := map[string]string{}
		for name := range request.Header {
			headers[strings.ToLower(name)] = request.Header.Get(name)
		}
		lines.Encode(headers)
		return
	}
	var headers map[string]string
	if err := json.NewDecoder(bytes.NewBufferString(os.Args[2])).Decode(&headers); err != nil {
		panic(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	event, err := binding.ToEvent(context.Background(), protocol.NewMessageFromHttpRequest(request))
	if err != nil {
		panic(err)
	}
	lines.Encode([]string{event.ID(), event.Subject()})
}
GO
sdk() {
  local name=$1
  shift
  case $name in
    python) timeout 60 "$WORK/venv/bin/python" "$WORK/python" "$@" ;;
    node) (cd "$WORK/node" && timeout 60 node node.mjs "$@") ;;
    go) timeout 60 "$WORK/go/program" "$@" ;;
  esac
}
seen=$(
  for writer in python node go; do
    headers=$(sdk "$writer" write "50%25" "run 7")
    for reader in python node go; do echo "$writer to $reader: $(sdk "$reader" read "$headers")"; done
  done
)
verdict 'python to python: ["50%25", "run 7"]
python to node: ["50%2525","run%207"]
python to go: ["50%2525","run%207"]
node to python: ["50%", "run 7"]
node to node: ["50%25","run 7"]
node to go: ["50%25","run 7"]
go to python: ["50%", "run 7"]
go to node: ["50%25","run 7"]
go to go: ["50%25","run 7"]' "$seen"
