#!/usr/bin/env bash
# surprise: The CloudEvents SDK for JavaScript drops the data 0 and false of an event, or makes a text of 5 and a number of "5".
# versions: npm cloudevents 10.0.0 (on node 20 or newer)
# expected: the data that the event had, whichever way it came: JSON data may be any JSON value (sdk-javascript's pull request 281
#   allowed numbers and truth values), and an event read from Kafka or over HTTP, structured or binary, is the same event.
# does: of structured HTTP messages it reads only data that is truthy: an event that counts 0 has no data. Of binary HTTP messages
#   it parses only what is an object or a list, so that 5 is "5" and false a text that is true. Binary messages to Kafka
#   carry a text without its quotes, and the reader there makes a number, a truth value or nothing of it: "run" is refused.
#   (Issue 382 of sdk-javascript tells the first of these of an empty subject.)

. "$(dirname "$0")/lib/finding.sh"
node_packages cloudevents@10.0.0
cat >"$WORK/node/read.mjs" <<'NODE'
import { CloudEvent, HTTP, Kafka } from "cloudevents";

const fields = { id: "1", source: "/runs", type: "step", time: "2026-01-01T00:00:00.000Z", datacontenttype: "application/json" };
const wire = (value) => (typeof value === "string" ? value : JSON.stringify(value)); // what a client writes
for (const data of [{ n: 0 }, 5, 0, false, "5", "run"]) {
  const event = new CloudEvent({ ...fields, data });
  const read = {};
  for (const mode of ["structured", "binary"]) {
    const message = HTTP[mode](event);
    read[`http ${mode}`] = () => HTTP.toEvent({ headers: message.headers, body: wire(message.body) });
    const record = Kafka[mode](event);
    read[`kafka ${mode}`] = () => Kafka.toEvent({ ...record, value: wire(record.value), body: wire(record.body) });
  }
  const seen = Object.entries(read).map(([way, event]) => {
    try {
      return `${way} ${JSON.stringify(event().data)}`;
    } catch (error) {
      return `${way} ${error.name}`;
    }
  });
  console.log(`${JSON.stringify(data)}: ${seen.join(", ")}`);
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node read.mjs)
verdict "{\"n\":0}: http structured {\"n\":0}, kafka structured {\"n\":0}, http binary {\"n\":0}, kafka binary {\"n\":0}
5: http structured 5, kafka structured 5, http binary \"5\", kafka binary 5
0: http structured undefined, kafka structured 0, http binary \"0\", kafka binary 0
false: http structured undefined, kafka structured false, http binary \"false\", kafka binary false
\"5\": http structured \"5\", kafka structured \"5\", http binary \"5\", kafka binary 5
\"run\": http structured \"run\", kafka structured \"run\", http binary \"run\", kafka binary SyntaxError" "$seen"
