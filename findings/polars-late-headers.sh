#!/usr/bin/env bash
# surprise: Polars reads a kcat -J dump whose first 100 records have no headers, and all later headers come out as nulls.
# versions: PyPI polars 2.1.0
# expected: the headers, or an error. Polars documents infer_schema_length of read_ndjson as the number of rows scanned for the
#   schema (default 100), and a column that was only null in them and then is not raises ComputeError.
# does: an empty array is read as a list of nulls, and in such a column each later string becomes a null, with the list's length
#   right and no error or warning. In a topic where tracing was switched on later all trace headers are lost so.

. "$(dirname "$0")/lib/finding.sh"
python_packages polars==2.1.0
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import json
import sys

import polars

def dump(name: str, early: object, late: object) -> str:
    path = f"{sys.argv[1]}/{name}.json"
    with open(path, "w") as lines:
        for offset in range(101):
            record = {"topic": "orders", "partition": 0, "offset": offset, "ts": 1, "payload": "one"}
            lines.write(json.dumps(record | {name: early if offset < 100 else late}) + "\n")
    return path

headers = polars.read_ndjson(dump("headers", [], ["trace", "4bf92f"]))["headers"]
print("headers", headers.dtype, "of the last record:", headers[-1].to_list())
try:
    print("key of the last record:", polars.read_ndjson(dump("key", None, "customer-1"))["key"][-1])
except polars.exceptions.ComputeError as error:
    print("key ComputeError:", str(error).split(":")[0])
headers = polars.read_ndjson(f"{sys.argv[1]}/headers.json", infer_schema_length=None)["headers"]
print("all rows scanned:", headers.dtype, headers[-1].to_list())
PYTHON
)
verdict "headers List(Null) of the last record: [None, None]
key ComputeError: got non-null value for NULL-typed column
all rows scanned: List(String) ['trace', '4bf92f']" "$seen"
