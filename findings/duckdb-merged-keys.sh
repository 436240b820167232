#!/usr/bin/env bash
# surprise: DuckDB's JSON reader makes one key of two different Kafka keys that are strings.
# versions: PyPI duckdb 2.0.1
# expected: as many groups as keys. kcat -J writes a key as a JSON string, and Kafka and its compaction compare keys byte by byte.
#   DuckDB documents that read_json detects types (auto_detect), as for CSV; that a quoted string's text changes is not said.
# does: where all sampled values look like UUIDs or dates, the column is of that type, and capitals, braces or missing zeros
#   are gone. Keys that lie on different partitions are counted as one, and what is written back hashes elsewhere.

. "$(dirname "$0")/lib/finding.sh"
python_packages duckdb==2.0.1
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK/dump.json" <<'PYTHON'
import json
import sys

import duckdb

for keys in (
    ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    ["2024-01-05", "2024-1-5"],
):
    with open(sys.argv[1], "w") as lines:
        for offset, key in enumerate(keys):
            record = {"topic": "orders", "partition": 0, "offset": offset, "key": key, "payload": "one"}
            lines.write(json.dumps(record) + "\n")
    for columns in ("", ", columns = {key: 'VARCHAR'}"):
        query = f"SELECT key, typeof(key), count(*) FROM read_json('{sys.argv[1]}'{columns}) GROUP BY key ORDER BY key"
        groups = [f"{key} {kind} x{count}" for key, kind, count in duckdb.sql(query).fetchall()]
        print("columns given:" if columns else "detected:", *groups)
PYTHON
)
verdict "detected: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 UUID x2
columns given: A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11 VARCHAR x1 a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 VARCHAR x1
detected: 2024-01-05 DATE x2
columns given: 2024-01-05 VARCHAR x1 2024-1-5 VARCHAR x1" "$seen"
