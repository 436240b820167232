#!/usr/bin/env bash
# surprise: While the field "paid_at" streams in, partialjson and incomplete-json-parser say that the field "paid", which was true, is null.
# versions: PyPI partialjson 1.2.0, jiter 0.19.0 for comparison; npm incomplete-json-parser 1.1.5, partial-json 0.1.7 for comparison (on
#   node 20 or newer)
# expected: true from the piece on that brings it, as of jiter and partial-json. What has come is final, and a name that has not ended is
#   no field: nobody can know whether it goes on.
# does: both make a field of each name as far as it has come, with null for its value. Where a name begins with another, as paid_at,
#   order_id or tokens_used do, it takes that field's value away for as long as the two are the same: a stream that is cut there, or
#   a consumer that acts on each state, finds a step whose values are gone.

. "$(dirname "$0")/lib/finding.sh"
python_packages partialjson==1.2.0 jiter==0.19.0
node_packages incomplete-json-parser@1.1.5 partial-json@0.1.7
cat >"$WORK/pieces" <<'JSON'
{"paid":true,"cents":1250
,"paid
_at":"2026-12-01","cents
_left":0}
JSON
cat >"$WORK/read.py" <<'PYTHON'
import json
import sys

import jiter
from partialjson.json_parser import JSONParser

text = ""
for piece in open(sys.argv[1]).read().splitlines():
    text += piece
    print("partialjson:", json.dumps(JSONParser().parse(text), separators=(",", ":")))
    print("jiter:", json.dumps(jiter.from_json(text.encode(), partial_mode=True), separators=(",", ":")))
PYTHON
cat >"$WORK/node/read.mjs" <<'NODE'
import { readFileSync } from "node:fs";
import { IncompleteJsonParser } from "incomplete-json-parser";
import { parse } from "partial-json";

const incomplete = new IncompleteJsonParser();
let text = "";
for (const piece of readFileSync(process.argv[2], "utf8").trim().split("\n")) {
  text += piece;
  incomplete.write(piece);
  console.log("incomplete-json-parser:", JSON.stringify(incomplete.getObjects()));
  console.log("partial-json:", JSON.stringify(parse(text)));
}
NODE
seen=$(
  timeout 120 "$WORK/venv/bin/python" "$WORK/read.py" "$WORK/pieces"
  timeout 120 node "$WORK/node/read.mjs" "$WORK/pieces"
)
verdict 'partialjson: {"paid":true,"cents":1250}
jiter: {"paid":true,"cents":1250}
partialjson: {"paid":null,"cents":1250}
jiter: {"paid":true,"cents":1250}
partialjson: {"paid":true,"cents":null,"paid_at":"2026-12-01"}
jiter: {"paid":true,"cents":1250,"paid_at":"2026-12-01"}
partialjson: {"paid":true,"cents":1250,"paid_at":"2026-12-01","cents_left":0}
jiter: {"paid":true,"cents":1250,"paid_at":"2026-12-01","cents_left":0}
incomplete-json-parser: {"paid":true,"cents":1250}
partial-json: {"paid":true,"cents":1250}
incomplete-json-parser: {"paid":null,"cents":1250}
partial-json: {"paid":true,"cents":1250}
incomplete-json-parser: {"paid":true,"cents":null,"paid_at":"2026-12-01"}
partial-json: {"paid":true,"cents":1250,"paid_at":"2026-12-01"}
incomplete-json-parser: {"paid":true,"cents":1250,"paid_at":"2026-12-01","cents_left":0}
partial-json: {"paid":true,"cents":1250,"paid_at":"2026-12-01","cents_left":0}' "$seen"
