#!/usr/bin/env bash
# surprise: fetch-event-stream joins the words of a streamed text and unindents its code: it drops spaces and empty first lines.
# versions: npm fetch-event-stream 0.1.6, eventsource-parser 3.0.6 for comparison (on node 20 or newer)
# expected: the text as it was sent. By the HTML standard one space behind the colon is left out and the rest is data, and an empty
#   data line is an empty line of the data: deltas of a text, sent as they are, begin with spaces and line ends.
# does: all white space behind the colon is left out, tabs, too, so that "one", " two" come to "onetwo" and a line of code
#   stands at the margin; and an empty line at the beginning of an event's data is as if it were not there. JSON in the data
#   survives both, so that the loss shows once a service sends plain text.

. "$(dirname "$0")/lib/finding.sh"
node_packages fetch-event-stream@0.1.6 eventsource-parser@3.0.6
cat >"$WORK/node/read.mjs" <<'NODE'
import { createParser } from "eventsource-parser";
import { events } from "fetch-event-stream";

const deltas = ["if one", " and two:", "\n    go()", "\n\tor wait()", "\n\n"];
const lines = (text) => text.split("\n").map((line) => `data: ${line}\n`);
const body = deltas.map((delta) => `${lines(delta).join("")}\n`).join("");
const show = (name, read) => console.log(`${name}: ${JSON.stringify(read.map(({ data }) => data).join(""))}`);

const compared = [];
createParser({ onEvent: (event) => compared.push(event) }).feed(body);
show("eventsource-parser", compared);
const read = [];
for await (const event of events(new Response(body))) read.push(event);
show("fetch-event-stream", read);
NODE
seen=$(cd "$WORK/node" && timeout 60 node read.mjs)
verdict 'eventsource-parser: "if one and two:\n    go()\n\tor wait()\n\n"
fetch-event-stream: "if oneand two:go()or wait()"' "$seen"
