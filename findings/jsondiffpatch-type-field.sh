#!/usr/bin/env bash
# surprise: jsondiffpatch deletes an object from the document that it patches, if the change was in the object's field _t.
# versions: npm jsondiffpatch 0.7.7, fast-json-patch 3.1.1 for comparison (on node 20 or newer)
# expected: patch(before, diff(before, after)) gives after, which is what the two functions are for; any name may stand in JSON. _t is
#   the field in which MongoDB's driver for .NET keeps an object's class, so that many documents have one.
# does: in its deltas _t says that a list is meant, and a change of a field of that name is written there, too. Patching then finds
#   neither object nor list: the step is gone with all its fields, in a list and in an object, and at the top of a document an
#   error is raised. The delta itself looks right, other changes in it are applied, and JSON Patch has no such name.

. "$(dirname "$0")/lib/finding.sh"
node_packages jsondiffpatch@0.7.7 fast-json-patch@3.1.1
cat >"$WORK/node/patch.mjs" <<'NODE'
import jsonPatch from "fast-json-patch";
import { diff, patch } from "jsondiffpatch";

const copy = (document) => structuredClone(document);
for (const [before, after] of [
  [{ run: 1, step: { _t: "Search", tokens: 5 } }, { run: 1, step: { _t: "Search", tokens: 6 } }],
  [{ run: 1, step: { _t: "Search", tokens: 5 } }, { run: 2, step: { _t: "Answer", tokens: 5 } }],
  [{ steps: [{ tokens: 5 }, { tokens: 7 }] }, { steps: [{ tokens: 5, _t: "Search" }, { tokens: 7 }] }],
]) {
  const delta = diff(copy(before), copy(after));
  console.log(JSON.stringify(before), "to", JSON.stringify(after));
  console.log("  delta:", JSON.stringify(delta));
  console.log("  jsondiffpatch:", JSON.stringify(patch(copy(before), delta)));
  console.log("  fast-json-patch:", JSON.stringify(jsonPatch.applyPatch(copy(before), jsonPatch.compare(before, after)).newDocument));
}
NODE
seen=$(cd "$WORK/node" && timeout 60 node patch.mjs)
verdict "{\"run\":1,\"step\":{\"_t\":\"Search\",\"tokens\":5}} to {\"run\":1,\"step\":{\"_t\":\"Search\",\"tokens\":6}}
  delta: {\"step\":{\"tokens\":[5,6]}}
  jsondiffpatch: {\"run\":1,\"step\":{\"_t\":\"Search\",\"tokens\":6}}
  fast-json-patch: {\"run\":1,\"step\":{\"_t\":\"Search\",\"tokens\":6}}
{\"run\":1,\"step\":{\"_t\":\"Search\",\"tokens\":5}} to {\"run\":2,\"step\":{\"_t\":\"Answer\",\"tokens\":5}}
  delta: {\"run\":[1,2],\"step\":{\"_t\":[\"Search\",\"Answer\"]}}
  jsondiffpatch: {\"run\":2}
  fast-json-patch: {\"run\":2,\"step\":{\"_t\":\"Answer\",\"tokens\":5}}
{\"steps\":[{\"tokens\":5},{\"tokens\":7}]} to {\"steps\":[{\"tokens\":5,\"_t\":\"Search\"},{\"tokens\":7}]}
  delta: {\"steps\":{\"0\":{\"_t\":[\"Search\"]},\"_t\":\"a\"}}
  jsondiffpatch: {\"steps\":[null,{\"tokens\":7}]}
  fast-json-patch: {\"steps\":[{\"tokens\":5,\"_t\":\"Search\"},{\"tokens\":7}]}" "$seen"
