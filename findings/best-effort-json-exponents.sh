#!/usr/bin/env bash
# surprise: best-effort-json-parser reads a cost of 1.2e-7 as 1.2, and makes the name of a field of the exponent, if the document is cut.
# versions: npm best-effort-json-parser 1.5.1, partial-json 0.1.7 for comparison (on node 20 or newer)
# expected: 1.2e-7, which is whole in the document: only what comes behind it is missing. JavaScript itself writes numbers so below
#   a millionth, as costs of a token are, and JSON allows it for any.
# does: a whole document goes to JSON.parse, and a cut one, as each step of a stream is, to a parser of its own that ends a number before
#   the e. The number is off by powers of ten, until the last piece comes; the exponent and what follows is a field with a name
#   of both, or one more item of a list.

. "$(dirname "$0")/lib/finding.sh"
node_packages best-effort-json-parser@1.5.1 partial-json@0.1.7
cat >"$WORK/node/read.js" <<'NODE'
const {parse} = require('best-effort-json-parser')
const other = require('partial-json')
const line = console.log.bind(console)
console.error = console.log = () => {}
for (const text of [
  `{"cost":${JSON.stringify(0.00000012)},"step":"pay"}`, `{"cost":${JSON.stringify(0.00000012)},"step":"pa`,
  '{"bytes":1.5E3,"step":"pa', '[0.5,2e-1,3', '{"cost":0.00000012,"step":"pa',
]) line(`${text} best-effort-json-parser: ${JSON.stringify(parse(text))} partial-json: ${JSON.stringify(other.parse(text))}`)
NODE
seen=$(timeout 60 node "$WORK/node/read.js")
verdict '{"cost":1.2e-7,"step":"pay"} best-effort-json-parser: {"cost":1.2e-7,"step":"pay"} partial-json: {"cost":1.2e-7,"step":"pay"}
{"cost":1.2e-7,"step":"pa best-effort-json-parser: {"cost":1.2,"e-7,\"step\"":"pa"} partial-json: {"cost":1.2e-7,"step":"pa"}
{"bytes":1.5E3,"step":"pa best-effort-json-parser: {"bytes":1.5,"E3,\"step\"":"pa"} partial-json: {"bytes":1500,"step":"pa"}
[0.5,2e-1,3 best-effort-json-parser: [0.5,2,"e-1",3] partial-json: [0.5,0.2,3]
{"cost":0.00000012,"step":"pa best-effort-json-parser: {"cost":1.2e-7,"step":"pa"} partial-json: {"cost":1.2e-7,"step":"pa"}' "$seen"
