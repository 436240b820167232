#!/usr/bin/env bash
# surprise: The AI SDK makes one text, mixed up, of a message's two, and an empty one of a text that comes without deltas.
# versions: npm ai 7.0.173, @ai-sdk/openai 4.0.118 (on node 22.22.0); openai 6.49.0 for comparison
# expected: the two texts of the message, each whole: every delta of a Responses stream names its content part with content_index.
#   And the text that response.output_text.done, response.output_item.done and response.completed state, if no delta came.
# does: the provider goes by the item alone, so that the deltas of its parts are strung together as they come ("onetwo more"),
#   and looks at deltas only: a text stated in the done events is "" with finishReason stop, like an answer that was empty.

. "$(dirname "$0")/lib/finding.sh"
node_22
node_packages ai@7.0.173 @ai-sdk/openai@4.0.118 openai@6.49.0 zod@4.6.7
cat >"$WORK/node/read.mjs" <<'NODE'
import { createServer } from "node:http";
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";
import OpenAI from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const response = {
  id: "resp_1", object: "response", created_at: 1, model: "any", status: "in_progress", output: [], error: null,
  incomplete_details: null, parallel_tool_calls: true, tool_choice: "auto", tools: [], metadata: {},
  usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 },
};
const part = (text) => ({ type: "output_text", text, annotations: [] });
const at = (content_index) => ({ item_id: "msg_1", output_index: 0, content_index });
const begin = (index) => ({ type: "response.content_part.added", ...at(index), part: part("") });
const delta = (index, delta) => ({ type: "response.output_text.delta", ...at(index), delta, logprobs: [] });
const done = (index, text) => [
  { type: "response.output_text.done", ...at(index), text, logprobs: [] },
  { type: "response.content_part.done", ...at(index), part: part(text) },
];
function stream(texts, events) {
  const item = { id: "msg_1", type: "message", role: "assistant", status: "in_progress", content: [] };
  const ended = { ...item, status: "completed", content: texts.map(part) };
  return [
    { type: "response.created", response },
    { type: "response.output_item.added", output_index: 0, item },
    ...events,
    ...texts.flatMap((text, index) => done(index, text)),
    { type: "response.output_item.done", output_index: 0, item: ended },
    { type: "response.completed", response: { ...response, status: "completed", output: [ended] } },
  ];
}
const streams = {
  "one by one": stream(["one more", "two"], [begin(0), delta(0, "one"), delta(0, " more"), begin(1), delta(1, "two")]),
  "in turns": stream(["one more", "two"], [begin(0), begin(1), delta(0, "one"), delta(1, "two"), delta(0, " more")]),
  "without deltas": stream(["one more"], [begin(0)]),
};

const server = createServer((request, reply) => {
  let asked = "";
  request.on("data", (piece) => (asked += piece));
  request.on("end", () => {
    reply.writeHead(200, { "content-type": "text/event-stream" });
    streams[JSON.parse(asked).model].forEach((event, sequence_number) => {
      reply.write(`event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number })}\n\n`);
    });
    reply.end();
  });
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const to = { apiKey: "none", baseURL: `http://127.0.0.1:${server.address().port}` };
for (const model of Object.keys(streams)) {
  const final = await new OpenAI({ ...to, maxRetries: 0 }).responses.stream({ model, input: "" }).finalResponse();
  console.log(`${model}, openai: ${JSON.stringify(final.output[0].content.map((content) => content.text))}`);
  const read = streamText({ model: createOpenAI(to).responses(model), prompt: "any", maxRetries: 0 });
  await read.consumeStream();
  const texts = (await read.content).map((content) => content.text);
  console.log(`${model}, ai: ${JSON.stringify(texts)} ${await read.finishReason}`);
}
process.exit(0);
NODE
seen=$(cd "$WORK/node" && timeout 60 "$NODE" read.mjs)
verdict "one by one, openai: [\"one more\",\"two\"]
one by one, ai: [\"one moretwo\"] stop
in turns, openai: [\"one more\",\"two\"]
in turns, ai: [\"onetwo more\"] stop
without deltas, openai: [\"one more\"]
without deltas, ai: [\"\"] stop" "$seen"
