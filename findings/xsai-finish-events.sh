#!/usr/bin/env bash
# surprise: xsAI's stream of events finishes an answer twice, the first time without tokens, and drops text that comes beside a tool call.
# versions: npm @xsai/stream-text 0.4.4; openai 6.49.0 for comparison (on node 20 or newer)
# expected: one event "finish" for an answer, with the tokens used, and the text that openai's own accumulator makes of the same chunks. The
#   reason to stop comes in a chunk with an empty delta and the usage in one behind it; a delta may have content and a tool call.
# does: fullStream tells "finish" at the reason to stop, before the usage is there, and again at the end: who counts or stores answers by it
#   has each twice, one of them with no tokens; of an answer with a tool call it tells the first alone. Where a delta has a call its
#   content is passed over, in events and in steps. A refusal is events of type error, and an answer without text that ended well.

. "$(dirname "$0")/lib/finding.sh"
node_packages @xsai/stream-text@0.4.4 openai@6.49.0
cat >"$WORK/node/read.mjs" <<'NODE'
import http from "node:http";
import { streamText } from "@xsai/stream-text";
import OpenAI from "openai";

const call = { index: 0, id: "call_1", type: "function", function: { name: "refund", arguments: "{}" } };
const STREAMS = {
  text: [{ content: "Pay" }, { content: " now." }],
  "text and call": [{ content: "One moment." }, { content: " Paying.", tool_calls: [call] }],
  refusal: [{ refusal: "I cannot" }, { refusal: " do that." }],
};
const tools = [{ type: "function", function: { name: "refund", parameters: {} }, execute: () => "done" }];

const server = http.createServer((request, response) => {
  let body = "";
  request.on("data", (piece) => (body += piece));
  request.on("end", () => {
    const { model } = JSON.parse(body);
    const chunk = { id: "1", object: "chat.completion.chunk", created: 1, model };
    const choice = (delta, finish_reason = null) => ({ ...chunk, choices: [{ index: 0, delta, finish_reason }] });
    const chunks = STREAMS[model].map((delta) => choice({ role: "assistant", ...delta }));
    chunks.push(choice({}, model === "text and call" ? "tool_calls" : "stop"));
    chunks.push({ ...chunk, choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } });
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(chunks.map((one) => `data: ${JSON.stringify(one)}\n\n`).join("") + "data: [DONE]\n\n");
  });
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const baseURL = `http://127.0.0.1:${server.address().port}/`;
for (const model in STREAMS) {
  const messages = [{ role: "user", content: "any" }];
  const { content, refusal } = await new OpenAI({ apiKey: "none", baseURL }).chat.completions
    .stream({ model, messages, stream_options: { include_usage: true } })
    .finalMessage();
  console.log(`${model}, openai: ${content || refusal}`);
  const { fullStream, steps } = streamText({ apiKey: "none", baseURL, model, messages, tools, streamOptions: { includeUsage: true } });
  const told = [];
  for await (const event of fullStream) {
    if (event.type === "finish") told.push(`finish (${event.finishReason}, ${event.usage?.total_tokens ?? "no"} tokens)`);
    if (event.type === "error") told.push(`error (${event.error})`);
  }
  const [step] = await steps;
  console.log(`${model}, xsai: ${step.text || "no text"} (${step.finishReason}), events: ${told.join(", ")}`);
}
process.exit(0);
NODE
seen=$(cd "$WORK/node" && timeout 120 node read.mjs 2>/dev/null)
verdict 'text, openai: Pay now.
text, xsai: Pay now. (stop), events: finish (stop, no tokens), finish (stop, 3 tokens)
text and call, openai: One moment. Paying.
text and call, xsai: One moment. (tool_calls), events: finish (tool_calls, no tokens)
refusal, openai: I cannot do that.
refusal, xsai: no text (stop), events: error (I cannot), error ( do that.), finish (stop, no tokens), finish (stop, 3 tokens)' "$seen"
