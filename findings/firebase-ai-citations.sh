#!/usr/bin/env bash
# surprise: Firebase AI's aggregated response of a stream has none of its citations and search sources, if a chunk without any ends it.
# versions: npm @firebase/ai 2.16.0, @firebase/app 0.16.2, @google-cloud/vertexai 1.12.0 for comparison (on node 20 or newer)
# expected: the sources, as @google-cloud/vertexai's aggregate of the same chunks has them: a chunk states the citation of a text, or the
#   pages that a search found, beside the text that rests on it, and others need not say it again.
# does: the aggregate takes citations, grounding and safety ratings from each chunk, also where it has none, so that the last chunk
#   decides. The text is whole. What a program shows, stores or is audited by says of text quoted from elsewhere that it has no
#   source; only who read the chunks one by one has seen it.

. "$(dirname "$0")/lib/finding.sh"
node_packages @firebase/ai@2.16.0 @firebase/app@0.16.2 @google-cloud/vertexai@1.12.0
cat >"$WORK/node/read.mjs" <<'NODE'
import http from "node:http";
import { getAI, getGenerativeModel, VertexAIBackend } from "@firebase/ai";
import { initializeApp } from "@firebase/app";
import { VertexAI } from "@google-cloud/vertexai";

const SOURCES = {
  citationMetadata: { citations: [{ uri: "https://example.org/poem", startIndex: 0, endIndex: 13 }] },
  groundingMetadata: { groundingChunks: [{ web: { uri: "https://example.org/page" } }] },
};
const STREAMS = { "sources last": [{}, SOURCES], "sources first": [SOURCES, {}] };

const server = http.createServer((request, response) => {
  const name = request.url.split("/models/")[1].split(":")[0].replaceAll("-", " ");
  response.writeHead(200, { "content-type": "text/event-stream" });
  ["Shall I compare", " thee?"].forEach((text, place) => {
    const candidate = { index: 0, content: { role: "model", parts: [{ text }] }, ...STREAMS[name][place] };
    if (place) candidate.finishReason = "STOP";
    response.write(`data: ${JSON.stringify({ candidates: [candidate] })}\r\n\r\n`);
  });
  response.end();
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const address = `127.0.0.1:${server.address().port}`;
const encrypted = globalThis.fetch; // Vertex AI's package asks by https only
globalThis.fetch = (url, options) => encrypted(String(url).replace("https:", "http:"), options);
const googleAuthOptions = { authClient: { getAccessToken: async () => ({ token: "none" }) } };
const vertex = new VertexAI({ project: "any", location: "any", apiEndpoint: address, googleAuthOptions });
const firebase = getAI(initializeApp({ apiKey: "none", projectId: "any", appId: "any" }), { backend: new VertexAIBackend() });
const readers = {
  vertexai: (model) => vertex.getGenerativeModel({ model }),
  "firebase/ai": (model) => getGenerativeModel(firebase, { model }, { baseUrl: `http://${address}` }),
};
for (const name in STREAMS) {
  for (const [reader, model] of Object.entries(readers)) {
    const { response } = await model(name.replaceAll(" ", "-")).generateContentStream("any");
    const [{ content, citationMetadata, groundingMetadata }] = (await response).candidates;
    const text = content.parts.map((part) => part.text).join("");
    const sources = [citationMetadata?.citations[0].uri, groundingMetadata?.groundingChunks[0].web.uri];
    console.log(`${name}, ${reader}: ${text} ${sources.filter(Boolean).join(" ") || "none"}`);
  }
}
process.exit(0);
NODE
seen=$(cd "$WORK/node" && timeout 120 node read.mjs 2>/dev/null)
verdict 'sources last, vertexai: Shall I compare thee? https://example.org/poem https://example.org/page
sources last, firebase/ai: Shall I compare thee? https://example.org/poem https://example.org/page
sources first, vertexai: Shall I compare thee? https://example.org/poem https://example.org/page
sources first, firebase/ai: Shall I compare thee? none' "$seen"
