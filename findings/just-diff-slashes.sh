#!/usr/bin/env bash
# surprise: A JSON patch of just-diff for the field "src/main.py" changes the field "main.py" of the field "src", or fails.
# versions: npm just-diff 6.0.2, fast-json-patch 3.1.1 applies, and makes a patch for comparison (on node 20 or newer)
# expected: a patch of RFC 6902, which jsonPatchPathConverter is documented to make: "/" in a name is written ~1 in a path, and "~" is ~0. Applied
#   to the state before, it gives the state after.
# does: the converter joins the names with "/" as they are. A state that has files or routes by name is patched in another place if there
#   is one, and otherwise the patch cannot be applied: whoever follows an agent's state by its deltas is told of a change of a
#   file that did not change, and not of the one that did.

. "$(dirname "$0")/lib/finding.sh"
node_packages just-diff@6.0.2 fast-json-patch@3.1.1
cat >"$WORK/node/apply.mjs" <<'JS'
import patch from 'fast-json-patch'
import { diff, jsonPatchPathConverter } from 'just-diff'

const makers = { 'just-diff': (before, after) => diff(before, after, jsonPatchPathConverter), 'fast-json-patch': patch.compare }
const states = [
  [{ src: { 'main.py': 1 }, 'src/main.py': 1 }, { src: { 'main.py': 1 }, 'src/main.py': 2 }],
  [{ src: {} }, { src: {}, 'src/main.py': 2 }],
  [{ 'src/main.py': 1 }, { 'src/main.py': 2 }],
  [{ '~1': 1, '/': 1 }, { '~1': 2, '/': 1 }],
]
for (const [before, after] of states) {
  console.log('to be:', JSON.stringify(after))
  for (const [name, make] of Object.entries(makers)) {
    const made = make(before, after)
    let applied
    try {
      applied = JSON.stringify(patch.applyPatch(structuredClone(before), made).newDocument)
    } catch {
      applied = 'an error'
    }
    console.log(`${name}: ${made[0].op} ${made[0].path}: ${applied}`)
  }
}
JS
seen=$(timeout 60 node "$WORK/node/apply.mjs")
verdict 'to be: {"src":{"main.py":1},"src/main.py":2}
just-diff: replace /src/main.py: {"src":{"main.py":2},"src/main.py":1}
fast-json-patch: replace /src~1main.py: {"src":{"main.py":1},"src/main.py":2}
to be: {"src":{},"src/main.py":2}
just-diff: add /src/main.py: {"src":{"main.py":2}}
fast-json-patch: add /src~1main.py: {"src":{},"src/main.py":2}
to be: {"src/main.py":2}
just-diff: replace /src/main.py: an error
fast-json-patch: replace /src~1main.py: {"src/main.py":2}
to be: {"~1":2,"/":1}
just-diff: replace /~1: {"~1":1,"/":2}
fast-json-patch: replace /~01: {"~1":2,"/":1}' "$seen"
