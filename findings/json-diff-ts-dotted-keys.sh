#!/usr/bin/env bash
# surprise: json-diff-ts writes the new count of "gpt-4.1" under a new name beside the object, and does not remove what was to go.
# versions: npm json-diff-ts 4.10.4, fast-json-patch 3.1.1 for comparison (on node 20 or newer)
# expected: the state after the change. The package's atomizeChangeset makes a flat list of changes to store or send, unatomizeChangeset and
#   applyChangeset are there to apply it, and fast-json-patch does so with its patches for the same states.
# does: a key with a dot gets the path $.usage[gpt-4.1], without quotes, which the way back reads as one key "usage[gpt-4.1]" of the
#   outermost object. Names of models, files and topics have dots: the receiver of the changes keeps the old count and gets a field that
#   nobody wrote; of a removal it sees nothing. Only a change inside of such a field's value raises an error.

. "$(dirname "$0")/lib/finding.sh"
node_packages json-diff-ts@4.10.4 fast-json-patch@3.1.1
cat >"$WORK/node/apply.mjs" <<'JS'
import patch from 'fast-json-patch'
import { applyChangeset, atomizeChangeset, diff, unatomizeChangeset } from 'json-diff-ts'

const states = [
  [{ usage: { total: 3 } }, { usage: { total: 5 } }],
  [{ usage: { 'gpt-4.1': 3 } }, { usage: { 'gpt-4.1': 5 } }],
  [{ usage: {} }, { usage: { 'gpt-4.1': 5 } }],
  [{ open: { 'order.7': 1250 } }, { open: {} }],
]
for (const [before, after] of states) {
  const changes = JSON.parse(JSON.stringify(atomizeChangeset(diff(before, after))))
  const received = applyChangeset(structuredClone(before), unatomizeChangeset(changes))
  const compared = patch.applyPatch(structuredClone(before), patch.compare(before, after)).newDocument
  console.log(JSON.stringify(before), 'by', changes[0].path, JSON.stringify(received), 'fast-json-patch', JSON.stringify(compared))
}
JS
seen=$(timeout 60 node "$WORK/node/apply.mjs")
verdict '{"usage":{"total":3}} by $.usage.total {"usage":{"total":5}} fast-json-patch {"usage":{"total":5}}
{"usage":{"gpt-4.1":3}} by $.usage[gpt-4.1] {"usage":{"gpt-4.1":3},"usage[gpt-4.1]":5} fast-json-patch {"usage":{"gpt-4.1":5}}
{"usage":{}} by $.usage[gpt-4.1] {"usage":{},"usage[gpt-4.1]":5} fast-json-patch {"usage":{"gpt-4.1":5}}
{"open":{"order.7":1250}} by $.open[order.7] {"open":{"order.7":1250}} fast-json-patch {"open":{}}' "$seen"
