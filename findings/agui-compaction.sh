#!/usr/bin/env bash
# surprise: AG-UI's compactEvents stores a run whose messages come back in another order, without their end, or not at all.
# versions: npm @ag-ui/client 1.0.0, rxjs 7.8.1 (on node 20 or newer)
# expected: the replayed events give the same conversation before and after. AG-UI documents compactEvents as preserving
#   semantics, for logs that restore a conversation, and takes events of several messages in turns.
# does: it writes a message when its end comes, so that of two in turns the one that ends first is first. A snapshot of the
#   messages in the middle of a text goes behind the text and undoes what came after it. And what had no end when the run
#   failed is written behind RUN_ERROR, where the same package's client refuses the log. All three replay well uncompacted.

. "$(dirname "$0")/lib/finding.sh"
node_packages @ag-ui/client@1.0.0 rxjs@7.8.1
cat >"$WORK/node/replay.mjs" <<'NODE'
import { AbstractAgent, compactEvents } from "@ag-ui/client";
import { from } from "rxjs";

class Log extends AbstractAgent {
  constructor(events) {
    super({ threadId: "thread" });
    this.events = events;
  }
  run() {
    return from(this.events);
  }
}

console.error = console.warn = () => {};
const run = { threadId: "thread", runId: "run" };
const begin = (messageId) => ({ type: "TEXT_MESSAGE_START", messageId, role: "assistant" });
const text = (messageId, delta) => ({ type: "TEXT_MESSAGE_CONTENT", messageId, delta });
const end = (messageId) => ({ type: "TEXT_MESSAGE_END", messageId });
const snapshot = { type: "MESSAGES_SNAPSHOT", messages: [{ id: "1", role: "assistant", content: "one" }] };
const started = { type: "RUN_STARTED", ...run }, finished = { type: "RUN_FINISHED", ...run };
const logs = {
  "in turns": [started, begin("1"), begin("2"), text("1", "one"), text("2", "two"), end("2"), end("1"), finished],
  snapshot: [started, begin("1"), text("1", "one"), snapshot, text("1", " more"), end("1"), finished],
  failed: [started, begin("1"), text("1", "one"), { type: "RUN_ERROR", message: "try again" }],
};
for (const [name, events] of Object.entries(logs)) {
  for (const [how, log] of Object.entries({ "as it came": events, compacted: compactEvents(events) })) {
    const agent = new Log(log);
    try {
      await agent.runAgent();
      console.log(`${name}, ${how}: ${agent.messages.map((message) => message.content).join(" | ")}`);
    } catch (error) {
      console.log(`${name}, ${how}: ${error.constructor.name}: ${error.message}`);
    }
  }
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node replay.mjs)
verdict "in turns, as it came: one | two
in turns, compacted: two | one
snapshot, as it came: one more
snapshot, compacted: one
failed, as it came: one
failed, compacted: AGUIError: Cannot send event type 'TEXT_MESSAGE_START': The run has already errored with 'RUN_ERROR'. No further events can be sent." "$seen"
