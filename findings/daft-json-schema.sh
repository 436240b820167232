#!/usr/bin/env bash
# surprise: Daft reads ids that a given schema has no room for as null, and 1.9 and true as the integer 1, without an error.
# versions: PyPI daft 0.7.26
# expected: an error, or the values: the program states a schema because it wants no other type, and a null is what a record without the
#   field has. Without a schema Daft keeps the same numbers whole, as text where an integer has more than 64 bits with a sign.
# does: read_json casts each value to the type and takes what does not fit for missing: counts and joins leave those runs out. Fractions
#   are cut off, and true is 1 in a column of counts.

. "$(dirname "$0")/lib/finding.sh"
python_packages daft==0.7.26
cat >"$WORK/steps.jsonl" <<'JSON'
{"id": 1, "tokens": 1}
{"id": 4294967297, "tokens": 1.9}
{"id": 18446744073709551615, "tokens": true}
{"id": "7", "tokens": "1.9"}
{"tokens": null}
JSON
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK/steps.jsonl" <<'PYTHON' 2>/dev/null
import sys

import daft

print("without a schema:", *daft.read_json(sys.argv[1]).to_pydict().values())
for kind in (daft.DataType.int32(), daft.DataType.int64()):
    frame = daft.read_json(sys.argv[1], schema={"id": kind, "tokens": kind})
    print(f"{kind}:", *frame.to_pydict().values())
PYTHON
)
verdict "without a schema: ['1', '4294967297', '18446744073709551615', '7', None] ['1', '1.9', 'true', '1.9', None]
Int32: [1, None, None, None, None] [1, 1, 1, None, None]
Int64: [1, 4294967297, None, None, None] [1, 1, 1, None, None]" "$seen"
