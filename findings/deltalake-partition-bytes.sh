#!/usr/bin/env bash
# surprise: deltalake gives the bytes of a partition column as text: the record key b"a" comes back as the six bytes \u0061.
# versions: PyPI deltalake 1.6.6, pyarrow 26.0.1
# expected: the bytes that were written, and found by a filter for them. The Delta protocol has binary partition values
#   written to the log as escaped characters, so a reader has to undo it.
# does: it writes the escapes and never undoes them, be it read as a pyarrow table or with SQL. A filter for the key finds no
#   row, and a job that reads and writes the table escapes the escapes. An empty key is null in the pyarrow table, empty in SQL.

. "$(dirname "$0")/lib/finding.sh"
python_packages deltalake==1.6.6 pyarrow==26.0.1
seen=$(timeout 120 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import sys

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake


def told(read):
    return sorted(read.to_pylist(), key=lambda row: row["offset"])


folder, again = f"{sys.argv[1]}/table", f"{sys.argv[1]}/again"
records = pa.table({"key": [b"a", b"\xff", b"", None], "offset": [0, 1, 2, 3]})
write_deltalake(folder, records, partition_by=["key"])
table = DeltaTable(folder)
print("arrow:", *(row["key"] for row in told(table.to_pyarrow_table())))
found = QueryBuilder().register("records", table).execute("SELECT key, \"offset\" FROM records").read_all()
print("sql:", *(row["key"] for row in told(pa.table(found))))
print("rows of b'a':", table.to_pyarrow_table(filters=[("key", "=", b"a")]).num_rows)
write_deltalake(again, table.to_pyarrow_table(), partition_by=["key"])
print("copied:", *(row["key"] for row in told(DeltaTable(again).to_pyarrow_table())))
PYTHON
)
verdict "arrow: b'\\\\u0061' b'\\\\u00FF' None None
sql: b'\\\\u0061' b'\\\\u00FF' b'' None
rows of b'a': 0
copied: b'\\\\u005C\\\\u0075\\\\u0030\\\\u0030\\\\u0036\\\\u0031' b'\\\\u005C\\\\u0075\\\\u0030\\\\u0030\\\\u0046\\\\u0046' None None" "$seen"
