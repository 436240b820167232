#!/usr/bin/env bash
# surprise: @azure/core-sse gives an event the name of an earlier one that had no data: a delta behind a ping is a second ping.
# versions: npm @azure/core-sse 2.3.0; eventsource-parser 3.0.6 for comparison (on node 20 or newer)
# expected: two events, neither with the name ping. By the HTML standard an empty line ends an event: without data nothing is
#   dispatched, and its name is forgotten. An event with data and no name has none, and an empty data line is a line like others.
# does: the empty line ends an event only if it has data. What a name, such as that of a sign of life, was stated for stays open, so
#   that the next event without one gets it, and a program that goes by names passes its delta over. Empty data lines before the first
#   that is not are dropped, and so is a line "data" without a colon: a text begins at another place than it was sent.

. "$(dirname "$0")/lib/finding.sh"
node_packages @azure/core-sse@2.3.0 eventsource-parser@3.0.6
cat >"$WORK/node/read.mjs" <<'NODE'
import { createSseStream } from "@azure/core-sse";
import { EventSourceParserStream } from "eventsource-parser/stream";

const STREAMS = {
  "a name without data": 'event: delta\ndata: {"n":1}\n\nevent: ping\n\ndata: {"n":2}\n\n',
  "empty lines first": "data:\ndata:\ndata: one\ndata:\ndata: two\n\n",
  "no colon": "data: one\ndata\ndata: two\n\n",
};

for (const [name, text] of Object.entries(STREAMS)) {
  const stream = () => new Blob([text]).stream();
  const readers = {
    "core-sse": createSseStream(stream()),
    "eventsource-parser": stream().pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()),
  };
  for (const [reader, events] of Object.entries(readers)) {
    const read = [];
    for await (const { event, data } of events) read.push([event || "", data]);
    console.log(`${name}, ${reader}:`, JSON.stringify(read));
  }
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node read.mjs)
verdict 'a name without data, core-sse: [["delta","{\"n\":1}"],["ping","{\"n\":2}"]]
a name without data, eventsource-parser: [["delta","{\"n\":1}"],["","{\"n\":2}"]]
empty lines first, core-sse: [["","one\n\ntwo"]]
empty lines first, eventsource-parser: [["","\n\none\n\ntwo"]]
no colon, core-sse: [["","one\ntwo"]]
no colon, eventsource-parser: [["","one\n\ntwo"]]' "$seen"
