#!/usr/bin/env bash
# surprise: json-merge-patch makes undefined of a state that did not change, and null of it if the patch was sent as JSON.
# versions: npm json-merge-patch 1.0.2 (on node 20 or newer); PyPI json-merge-patch 0.3.0 for comparison
# expected: apply(before, generate(before, after)) gives after, as the README has both for objects. For a document that is the same that is
#   the patch {}: by RFC 7396 a patch which is an object leaves what it does not name, and any other patch is the new document.
# does: generate gives undefined for two equal documents, and apply gives what is not an object back as the new document. A state that is
#   kept by patches is gone at the first step that changes nothing: undefined, or null where the patch went through JSON in
#   a list. An object that is emptied and a changed one are patched right, so that it shows with idle steps alone.

. "$(dirname "$0")/lib/finding.sh"
node_packages json-merge-patch@1.0.2
python_packages json-merge-patch==0.3.0
cat >"$WORK/node/states.js" <<'NODE'
const {apply, generate} = require('json-merge-patch')
const step = {run: 'run-1', usage: {tokens: 7}}
for (const after of [{run: 'run-1', usage: {tokens: 9}}, {run: 'run-1', usage: {}}, {}, {usage: {tokens: 7}, run: 'run-1'}]) {
  const patch = generate(step, after)
  const [sent] = JSON.parse(JSON.stringify([patch]))
  const show = value => JSON.stringify(value) ?? 'undefined'
  console.log(`javascript: ${show(patch)}, applied ${show(apply(structuredClone(step), patch))}, sent ${show(apply(structuredClone(step), sent))}`)
}
NODE
seen=$(
  timeout 60 node "$WORK/node/states.js"
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import copy
import json

import json_merge_patch

step = {"run": "run-1", "usage": {"tokens": 7}}
patch = json_merge_patch.create_patch(step, copy.deepcopy(step))
print(f"python: {json.dumps(patch)}, applied {json.dumps(json_merge_patch.merge(copy.deepcopy(step), patch))}")
PYTHON
)
verdict 'javascript: {"usage":{"tokens":9}}, applied {"run":"run-1","usage":{"tokens":9}}, sent {"run":"run-1","usage":{"tokens":9}}
javascript: {"usage":{"tokens":null}}, applied {"run":"run-1","usage":{}}, sent {"run":"run-1","usage":{}}
javascript: {"run":null,"usage":null}, applied {}, sent {}
javascript: undefined, applied undefined, sent null
python: {}, applied {"run": "run-1", "usage": {"tokens": 7}}' "$seen"
