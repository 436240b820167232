#!/usr/bin/env bash
# surprise: srsly writes a cost of 0.00000012345678 as 0.0000001235 into JSON lines, and 4e-11 as 0; with sort_keys it keeps both.
# versions: PyPI srsly 2.5.6
# expected: numbers that are read back as they were, as from Python's json and, by srsly itself, with sort_keys=True: an option for the
#   order of keys. srsly is spaCy's and Prodigy's reader and writer of JSON lines, and documents no limit of digits.
# does: its copy of an old ujson writes ten places behind the point, however small the number is; with sort_keys it is Python's json
#   that writes. What a small step cost has few digits left, or is nothing, and a log that is read and written again is another
#   one, though nothing failed.

. "$(dirname "$0")/lib/finding.sh"
python_packages srsly==2.5.6
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK/costs.jsonl" <<'PYTHON'
import json
import sys

import srsly

COSTS = [0.00000012345678, 4e-11, 0.30000000000000004, 1.25]
print("json:", json.dumps(COSTS))
print("srsly:", srsly.json_dumps(COSTS))
print("srsly, sort_keys:", srsly.json_dumps(COSTS, sort_keys=True))
srsly.write_jsonl(sys.argv[1], [{"run": 7, "cost": cost} for cost in COSTS])
print("read back:", [record["cost"] == cost for record, cost in zip(srsly.read_jsonl(sys.argv[1]), COSTS, strict=True)])
PYTHON
)
verdict 'json: [1.2345678e-07, 4e-11, 0.30000000000000004, 1.25]
srsly: [0.0000001235,0.0,0.3,1.25]
srsly, sort_keys: [1.2345678e-07,4e-11,0.30000000000000004,1.25]
read back: [False, False, True, True]' "$seen"
