#!/usr/bin/env bash
# surprise: ndjson and jsonlines for Node say that a log has ended where a line is null, and report a fault of the stream afterwards.
# versions: npm ndjson 2.0.0, jsonlines 0.1.1; stream-json 3.8.0 for comparison (on node 20 or newer)
# expected: four values, the second of them null: the description of JSON Lines permits any JSON value in a line, and null is what a
#   tombstone leaves in a file of a topic's values. Or an error that names the line, as both have for one that is no JSON.
# does: the value goes to push(), for which null is the end of the stream: the program's handler of "end" runs after the first record,
#   and counts, commits or closes what it has. The error that follows, "stream.push() after EOF", speaks of no line and is nobody's
#   once the handlers are done. If null is in the last line there is no error at all.

. "$(dirname "$0")/lib/finding.sh"
node_packages ndjson@2.0.0 jsonlines@0.1.1 stream-json@3.8.0
cat >"$WORK/node/read.mjs" <<'NODE'
import jsonlines from "jsonlines";
import ndjson from "ndjson";
import { PassThrough } from "node:stream";
import jsonl from "stream-json/jsonl/parser.js";

const LOGS = { "null in the middle": ['{"n":1}', "null", '{"n":3}', '{"n":4}'], "null at the end": ['{"n":1}', "null"] };
const READERS = { ndjson: () => ndjson.parse(), jsonlines: () => jsonlines.parse(), "stream-json": () => jsonl.asStream() };

for (const [log, lines] of Object.entries(LOGS)) {
  for (const [name, reader] of Object.entries(READERS)) {
    const seen = [];
    const parser = reader();
    parser.on("data", (value) => seen.push(JSON.stringify(name === "stream-json" ? value.value : value)));
    parser.on("end", () => seen.push("end"));
    parser.on("error", (error) => seen.push(`error: ${error.message}`));
    const source = new PassThrough();
    source.pipe(parser);
    for (const line of lines) {
      source.write(`${line}\n`);
      // as from a file that grows: what one line causes is done before the next one comes
      for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    }
    source.end();
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    console.log(`${log}, ${name}:`, seen.join(", "));
  }
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node read.mjs)
verdict 'null in the middle, ndjson: {"n":1}, end, error: stream.push() after EOF
null in the middle, jsonlines: {"n":1}, end, error: stream.push() after EOF
null in the middle, stream-json: {"n":1}, null, {"n":3}, {"n":4}, end
null at the end, ndjson: {"n":1}, end
null at the end, jsonlines: {"n":1}, end
null at the end, stream-json: {"n":1}, null, end' "$seen"
