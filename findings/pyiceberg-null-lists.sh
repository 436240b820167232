#!/usr/bin/env bash
# surprise: pyiceberg stores a null list of structs, the form that a record's headers have, as an empty list.
# versions: PyPI pyiceberg 0.12.0 with its extra sql-sqlite, pyarrow 26.0.1 (writes for comparison, too); duckdb 2.0.1 reads
# expected: what was appended: the column is optional, Parquet has a place for a null list beside an empty one, and pyarrow
#   writes the two apart.
# does: before it writes, append() puts a list, or the values of a map, together anew from their elements if these are structs, and the
#   new list has no nulls: the file has [], and no reader can tell a record without headers from one whose headers are not known,
#   or a step without calls from one whose calls were left out. Lists and maps of other values keep their nulls. (Issue 3833 of
#   iceberg-python reports it of lists.)

. "$(dirname "$0")/lib/finding.sh"
python_packages "pyiceberg[sql-sqlite]==0.12.0" pyarrow==26.0.1 duckdb==2.0.1
seen=$(cd "$WORK" && timeout 120 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import os

import duckdb
import pyarrow
import pyarrow.parquet
from pyiceberg.catalog.sql import SqlCatalog

header = pyarrow.struct({"key": pyarrow.string(), "value": pyarrow.binary()})
COLUMNS = {
    "list of structs": (pyarrow.list_(header), [{"key": "trace", "value": b"4b"}]),
    "map of structs": (pyarrow.map_(pyarrow.string(), header), [("first", {"key": "trace", "value": b"4b"})]),
    "list of texts": (pyarrow.list_(pyarrow.string()), ["trace"]),
    "map of bytes": (pyarrow.map_(pyarrow.string(), pyarrow.binary()), [("trace", b"4b")]),
}

warehouse = os.path.join(os.getcwd(), "warehouse")
os.mkdir(warehouse)
catalog = SqlCatalog("any", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
catalog.create_namespace("any")
for number, (name, (kind, some)) in enumerate(COLUMNS.items()):
    records = pyarrow.table({"headers": pyarrow.array([some, [], None], kind)})
    table = catalog.create_table(f"any.records_{number}", schema=records.schema)
    table.append(records)
    pyarrow.parquet.write_table(records, "plain.parquet")
    (file,) = [task.file.file_path for task in table.scan().plan_files()]
    count = "len" if "list" in name else "cardinality"
    stored = [
        [number for (number,) in duckdb.sql(f"SELECT {count}(headers) FROM '{path}'").fetchall()] for path in ("plain.parquet", file)
    ]
    print(f"{name}, read by DuckDB: from pyarrow {stored[0]}, from pyiceberg {stored[1]}")
    read = table.scan().to_arrow()["headers"].to_pylist()
    print(f"{name}, read by pyiceberg: {[None if one is None else len(one) for one in read]}")
PYTHON
)
verdict 'list of structs, read by DuckDB: from pyarrow [1, 0, None], from pyiceberg [1, 0, 0]
list of structs, read by pyiceberg: [1, 0, 0]
map of structs, read by DuckDB: from pyarrow [1, 0, None], from pyiceberg [1, 0, 0]
map of structs, read by pyiceberg: [1, 0, 0]
list of texts, read by DuckDB: from pyarrow [1, 0, None], from pyiceberg [1, 0, None]
list of texts, read by pyiceberg: [1, 0, None]
map of bytes, read by DuckDB: from pyarrow [1, 0, None], from pyiceberg [1, 0, None]
map of bytes, read by pyiceberg: [1, 0, None]' "$seen"
