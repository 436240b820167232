#!/usr/bin/env bash
# surprise: @google/generative-ai makes two refunds of one that streams behind a text, and of two different calls the second twice.
# versions: npm @google/generative-ai 0.24.1, @google-cloud/vertexai 1.12.0 (on node 20 or newer)
# expected: the calls, texts and answers of the chunks, each once. A chunk's content has a list of parts, of which several may be calls,
#   and a chunk names its answer by index. The promise "response" of both is documented as the aggregate of the stream.
# does: generative-ai fills one object for all parts of a chunk and adds it once for each of them, so that functionCalls() lists a call
#   as often as the chunk has parts, and it strings all answers together. Vertex AI's package goes by places instead of indices, drops the
#   code that ran and its output, and, as generative-ai does, makes the model's thoughts a part of the answer. Both are deprecated in
#   favour of @google/genai, which has no such aggregate, and are still much used.

. "$(dirname "$0")/lib/finding.sh"
node_packages @google/generative-ai@0.24.1 @google-cloud/vertexai@1.12.0
cat >"$WORK/node/read.mjs" <<'NODE'
import http from "node:http";
import { VertexAI } from "@google-cloud/vertexai";
import { GoogleGenerativeAI } from "@google/generative-ai";

const call = (name, order) => ({ functionCall: { name, args: { order } } });
const answer = (index, ...parts) => ({ index, content: { role: "model", parts } });
const STREAMS = {
  "one part in each chunk": [answer(0, { text: "Paying." }), answer(0, call("refund", 7))],
  "text and call": [answer(0, { text: "Paying." }, call("refund", 7))],
  "two calls": [answer(0, call("refund", 7), call("cancel", 8))],
  "two answers": [answer(0, { text: "Pay" }), answer(1, { text: "Do not" }), answer(0, { text: " now." }), answer(1, { text: " pay." })],
  thoughts: [answer(0, { text: "A trick? No. ", thought: true }), answer(0, { text: "Paid." })],
  code: [
    answer(0, { executableCode: { language: "PYTHON", code: "6*7" } }),
    answer(0, { codeExecutionResult: { outcome: "OUTCOME_OK", output: "42" } }),
    answer(0, { text: "42." }),
  ],
};

const server = http.createServer((request, response) => {
  const name = request.url.split("/models/")[1].split(":")[0].replaceAll("-", " ");
  response.writeHead(200, { "content-type": "text/event-stream" });
  STREAMS[name].forEach((one, place, all) => {
    if (place === all.length - 1) one = { ...one, finishReason: "STOP" };
    response.write(`data: ${JSON.stringify({ candidates: [one] })}\r\n\r\n`);
  });
  response.end();
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const address = `127.0.0.1:${server.address().port}`;
const encrypted = globalThis.fetch; // Vertex AI's package asks by https only
globalThis.fetch = (url, options) => encrypted(String(url).replace("https:", "http:"), options);
const googleAuthOptions = { authClient: { getAccessToken: async () => ({ token: "none" }) } };
const vertex = new VertexAI({ project: "any", location: "any", apiEndpoint: address, googleAuthOptions });
const readers = {
  "generative-ai": (model) => new GoogleGenerativeAI("none").getGenerativeModel({ model }, { baseUrl: `http://${address}` }),
  vertexai: (model) => vertex.getGenerativeModel({ model }),
};
const show = (part) => {
  const shown = part.text ? [JSON.stringify(part.text)] : [];
  if (part.functionCall) shown.push(`${part.functionCall.name}(${part.functionCall.args.order})`);
  if (part.executableCode) shown.push("code");
  if (part.codeExecutionResult) shown.push("output");
  return shown.join(" and ");
};
for (const name in STREAMS) {
  for (const [reader, model] of Object.entries(readers)) {
    const { response } = await model(name.replaceAll(" ", "-")).generateContentStream("any");
    const answers = (await response).candidates.map((one) => one.content.parts.map(show).join(", "));
    console.log(`${name}, ${reader}: ${answers.join(" | ")}`);
  }
}
server.close();
NODE
seen=$(cd "$WORK/node" && timeout 120 node read.mjs 2>/dev/null)
verdict 'one part in each chunk, generative-ai: "Paying.", refund(7)
one part in each chunk, vertexai: "Paying.", refund(7)
text and call, generative-ai: "Paying." and refund(7), "Paying." and refund(7)
text and call, vertexai: "Paying.", refund(7)
two calls, generative-ai: cancel(8), cancel(8)
two calls, vertexai: refund(7), cancel(8)
two answers, generative-ai: "Pay", "Do not", " now.", " pay."
two answers, vertexai: "PayDo not now. pay."
thoughts, generative-ai: "A trick? No. ", "Paid."
thoughts, vertexai: "A trick? No. Paid."
code, generative-ai: code, output, "42."
code, vertexai: "42."' "$seen"
