#!/usr/bin/env bash
# surprise: The CloudEvents SDK for JavaScript dates a record without a time anew whenever it is read from Kafka, or refuses it.
# versions: npm cloudevents 10.0.0 (on node 20 or newer)
# expected: an event without time, in both content modes: time is an optional attribute of CloudEvents 1.0, and one message
#   read twice gives one event twice.
# does: in binary mode each reading puts in the moment of that reading, so that the same record gives another event whenever
#   it is read, and no reader can tell such a time from a true one. In structured mode a RangeError is raised. A time that
#   is there loses what is beyond milliseconds.

. "$(dirname "$0")/lib/finding.sh"
node_packages cloudevents@10.0.0
cat >"$WORK/node/read.mjs" <<'NODE'
import cloudevents from "cloudevents";

const attributes = { specversion: "1.0", id: "1", source: "/orders", type: "placed" };
const headers = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce_${name}`, value]));
const binary = (more) => ({
  key: "k",
  value: Buffer.from("{}"),
  headers: { "content-type": "application/json", ...headers, ...more },
});
const structured = {
  key: "k",
  value: Buffer.from(JSON.stringify({ ...attributes, data: {} })),
  headers: { "content-type": "application/cloudevents+json" },
};
const read = (message) => cloudevents.Kafka.toEvent(message);

const first = read(binary()).time;
let second = first;
for (let turns = 0; second === first && turns < 10_000_000; turns += 1) second = read(binary()).time; // until the clock has moved
console.log("binary, no time, read twice:", typeof first, first === second ? "equal" : "different");
console.log("binary, nanoseconds:", read(binary({ ce_time: "2026-05-04T03:02:01.123456789Z" })).time);
try {
  console.log("structured, no time:", typeof read(structured).time);
} catch (error) {
  console.log("structured, no time:", error.name, error.message);
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node read.mjs)
verdict "binary, no time, read twice: string different
binary, nanoseconds: 2026-05-04T03:02:01.123Z
structured, no time: RangeError Invalid time value" "$seen"
