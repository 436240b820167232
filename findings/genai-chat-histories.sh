#!/usr/bin/env bash
# surprise: Google's genai forgets a streamed turn of a chat if its last chunk has no text: the next request lacks question and answer.
# versions: PyPI google-genai 3.6.1; npm @google/genai 3.1.0 (on node 20 or newer); Go google.golang.org/genai v1.77.0
# expected: both questions in the second request, however the stream of the first answer ends. Gemini may send the reason to stop in a
#   chunk of its own: with an empty text, with content that has no parts, or without content.
# does: the program gets the whole answer, but the chat asks for a part in each chunk, takes the turn for invalid without one, and keeps
#   it out of what it sends. Nothing is raised or logged: "And order 8?" goes out alone, and so does each later question.

. "$(dirname "$0")/lib/finding.sh"
python_packages google-genai==3.6.1
node_packages @google/genai@3.1.0
cat >"$WORK/node/chat.mjs" <<'NODE'
import { GoogleGenAI } from "@google/genai";

const [url, ...models] = process.argv.slice(2);
const service = new GoogleGenAI({ apiKey: "none", httpOptions: { baseUrl: url } });
for (const model of models) {
  const chat = service.chats.create({ model });
  for (const message of ["Is order 7 paid?", "And order 8?"]) {
    let answer = "";
    for await (const chunk of await chat.sendMessageStream({ message })) answer += chunk.text || "";
    if (answer !== "Order 7 is paid") throw new Error(answer);
  }
}
NODE
go_program google.golang.org/genai@v1.77.0 <<'GO'
package main

import (
	"context"
	"os"

	"google.golang.org/genai"
)

func main() {
	options := genai.HTTPOptions{BaseURL: os.Args[1]}
	client, err := genai.NewClient(context.Background(), &genai.ClientConfig{APIKey: "none", Backend: genai.BackendGeminiAPI, HTTPOptions: options})
	if err != nil {
		panic(err)
	}
	for _, model := range os.Args[2:] {
		chat, err := client.Chats.Create(context.Background(), model, nil, nil)
		if err != nil {
			panic(err)
		}
		for _, question := range []string{"Is order 7 paid?", "And order 8?"} {
			for _, err := range chat.SendMessageStream(context.Background(), genai.Part{Text: question}) {
				if err != nil {
					panic(err)
				}
			}
		}
	}
}
GO
cat >"$WORK/chat.py" <<'PYTHON'
import http.server
import json
import os
import subprocess
import sys
import threading

from google import genai

LAST = {  # the model's name, and the candidate of its last chunk
    "an-empty-text": {"content": {"role": "model", "parts": [{"text": ""}]}},
    "no-parts": {"content": {"role": "model"}},
    "no-content": {},
}
asked = {}


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        model = self.path.split("/models/")[1].split(":")[0]
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked[model] = ["".join(part.get("text", "") for part in content["parts"]) for content in request["contents"]]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for candidate in (
            {"content": {"role": "model", "parts": [{"text": "Order 7"}]}},
            {"content": {"role": "model", "parts": [{"text": " is paid"}]}},
            {**LAST[model], "finishReason": "STOP"},
        ):
            self.wfile.write(b"data: %s\r\n\r\n" % json.dumps({"candidates": [{"index": 0, **candidate}]}).encode())

    def log_message(self, *_):
        pass


def python():
    service = genai.Client(api_key="none", http_options={"base_url": url})
    for model in LAST:
        chat = service.chats.create(model=model)
        for question in ("Is order 7 paid?", "And order 8?"):
            answer = "".join(chunk.text or "" for chunk in chat.send_message_stream(question))
            assert answer == "Order 7 is paid", answer


def other(*command):
    subprocess.run([*command, url, *LAST], check=True, stderr=subprocess.DEVNULL)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
for name, run in {
    "Python": python,
    "JavaScript": lambda: other("node", os.path.join(sys.argv[1], "node", "chat.mjs")),
    "Go": lambda: other(os.path.join(sys.argv[1], "go", "program")),
}.items():
    asked.clear()
    run()
    for model, texts in asked.items():
        print(f"{name}, {model} at the end: {' | '.join(text for text in texts if text)}")
PYTHON
seen=$(timeout 120 "$WORK/venv/bin/python" "$WORK/chat.py" "$WORK" 2>/dev/null)
verdict 'Python, an-empty-text at the end: Is order 7 paid? | Order 7 |  is paid | And order 8?
Python, no-parts at the end: And order 8?
Python, no-content at the end: And order 8?
JavaScript, an-empty-text at the end: Is order 7 paid? | Order 7 |  is paid | And order 8?
JavaScript, no-parts at the end: And order 8?
JavaScript, no-content at the end: And order 8?
Go, an-empty-text at the end: Is order 7 paid? | Order 7 |  is paid | And order 8?
Go, no-parts at the end: And order 8?
Go, no-content at the end: And order 8?' "$seen"
