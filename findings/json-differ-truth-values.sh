#!/usr/bin/env bash
# surprise: jsondiff and dictdiffer find no difference between 0 and false, 1 and true, and 1 and 1.0, so that patches leave them out.
# versions: PyPI jsondiff 2.2.1, dictdiffer 0.10.0; jsonpatch 1.48 for comparison
# expected: a difference, as jsonpatch finds in each: JSON's true is no number, and jsondiff's documentation has it diff JSON. The
#   texts of 1 and 1.0 differ, and so do digests of them and the types that a schema gives them.
# does: both compare with Python's ==, for which True is 1. A step whose "ok" went from 1 to true, or whose exit code 0 became
#   false, counts as unchanged in an audit, and a state that is kept up to date by jsondiff's patches keeps the old value.

. "$(dirname "$0")/lib/finding.sh"
python_packages jsondiff==2.2.1 dictdiffer==0.10.0 jsonpatch==1.48
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

import dictdiffer
import jsondiff
import jsonpatch

for before, after in (
    ('{"exit": 0}', '{"exit": 2}'),
    ('{"exit": 0}', '{"exit": false}'),
    ('{"ok": 1}', '{"ok": true}'),
    ('{"flags": [0, 1]}', '{"flags": [false, true]}'),
    ('{"cost": 1}', '{"cost": 1.0}'),
):
    old, new = json.loads(before), json.loads(after)
    print(f"{before} and {after}:")
    print("  jsonpatch", jsonpatch.make_patch(old, new))
    patched = json.dumps(jsondiff.patch(old, jsondiff.diff(old, new)))
    print("  jsondiff", jsondiff.diff(old, new, syntax="symmetric", dump=True), "patched:", patched)
    print("  dictdiffer", list(dictdiffer.diff(old, new)))
PYTHON
)
verdict "{\"exit\": 0} and {\"exit\": 2}:
  jsonpatch [{\"op\": \"replace\", \"path\": \"/exit\", \"value\": 2}]
  jsondiff {\"exit\": [0, 2]} patched: {\"exit\": 2}
  dictdiffer [('change', 'exit', (0, 2))]
{\"exit\": 0} and {\"exit\": false}:
  jsonpatch [{\"op\": \"replace\", \"path\": \"/exit\", \"value\": false}]
  jsondiff {} patched: {\"exit\": 0}
  dictdiffer []
{\"ok\": 1} and {\"ok\": true}:
  jsonpatch [{\"op\": \"replace\", \"path\": \"/ok\", \"value\": true}]
  jsondiff {} patched: {\"ok\": 1}
  dictdiffer []
{\"flags\": [0, 1]} and {\"flags\": [false, true]}:
  jsonpatch [{\"op\": \"replace\", \"path\": \"/flags/0\", \"value\": false}, {\"op\": \"replace\", \"path\": \"/flags/1\", \"value\": true}]
  jsondiff {} patched: {\"flags\": [0, 1]}
  dictdiffer []
{\"cost\": 1} and {\"cost\": 1.0}:
  jsonpatch [{\"op\": \"replace\", \"path\": \"/cost\", \"value\": 1.0}]
  jsondiff {} patched: {\"cost\": 1}
  dictdiffer []" "$seen"
