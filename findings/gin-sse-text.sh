#!/usr/bin/env bash
# surprise: gin's server-sent events join the words of a streamed text, unindent its code, and make a backslash and an r of CR LF.
# versions: Go github.com/gin-contrib/sse v1.1.2, github.com/tmaxmax/go-sse v0.12.0 reads; npm eventsource-parser 3.0.6 reads (on
#   node 20 or newer)
# expected: the data that was given. By the standard a reader takes one space after the colon away, if there is one, so that a
#   writer has to put one there before data that begins with a space; and CR LF, CR and LF all end a line.
# does: it writes "data:" and the text at once, after each line feed, too, so that the space of " world", and one of each indented
#   line, is taken for the optional one. A carriage return becomes the two characters \r in the text. Its own Decode reads it so,
#   too. What is given as a struct or map is written as JSON and safe, but a delta of a language model is a string. (Spring's
#   SseEmitter has the first of these, issue 33963 of spring-framework.)

. "$(dirname "$0")/lib/finding.sh"
node_packages eventsource-parser@3.0.6
cat >"$WORK/node/read.mjs" <<'NODE'
import fs from "fs";
import { createParser } from "eventsource-parser";

const read = [];
createParser({ onEvent: (event) => read.push(event.data) }).feed(fs.readFileSync(0, "utf8"));
console.log("eventsource-parser:", JSON.stringify(read.join("")));
NODE
go_program github.com/gin-contrib/sse@v1.1.2 github.com/tmaxmax/go-sse@v0.12.0 <<'GO'
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	gin "github.com/gin-contrib/sse"
	gosse "github.com/tmaxmax/go-sse"
)

func main() {
	deltas := []string{"Hello", " world:", "\nif x:\n    y = 1\n", "CR LF:\r\nend"}
	var stream bytes.Buffer
	for _, delta := range deltas {
		if err := gin.Encode(&stream, gin.Event{Data: delta}); err != nil {
			panic(err)
		}
	}
	fmt.Printf("given: %q\n", strings.Join(deltas, ""))
	var read, decoded strings.Builder
	for event, err := range gosse.Read(bytes.NewReader(stream.Bytes()), nil) {
		if err != nil {
			panic(err)
		}
		read.WriteString(event.Data)
	}
	fmt.Printf("go-sse: %q\n", read.String())
	events, err := gin.Decode(bytes.NewReader(stream.Bytes()))
	if err != nil {
		panic(err)
	}
	for _, event := range events {
		decoded.WriteString(event.Data.(string))
	}
	fmt.Printf("gin-contrib/sse: %q\n", decoded.String())
	if err := os.WriteFile(os.Args[1], stream.Bytes(), 0o600); err != nil {
		panic(err)
	}
}
GO
seen=$(
  timeout 60 "$WORK/go/program" "$WORK/stream"
  (cd "$WORK/node" && timeout 60 node read.mjs <"$WORK/stream")
)
verdict "given: \"Hello world:\\nif x:\\n    y = 1\\nCR LF:\\r\\nend\"
go-sse: \"Helloworld:\\nif x:\\n   y = 1\\nCR LF:\\\\r\\nend\"
gin-contrib/sse: \"Helloworld:\\nif x:\\n   y = 1\\nCR LF:\\\\r\\nend\"
eventsource-parser: \"Helloworld:\\nif x:\\n   y = 1\\nCR LF:\\\\r\\nend\"" "$seen"
