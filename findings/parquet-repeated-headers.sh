#!/usr/bin/env bash
# surprise: Of a header that a Kafka record has twice, DuckDB and DataFusion find the first in Parquet, Polars and others the last.
# versions: PyPI duckdb 2.0.1, datafusion 55.0.0, polars 2.1.0, fastparquet 2026.9.0; pyarrow 26.0.1 writes
# expected: one answer. Kafka allows a header twice; archives keep headers as a Parquet MAP; and Parquet's own description of
#   MAP says that of several pairs with one key the value is the last.
# does: headers['trace'] is the first value in DuckDB and DataFusion, while both count two keys. Polars and fastparquet keep
#   the last alone. DuckDB hands such a map out as Arrow, and refuses to make Python objects of it.

. "$(dirname "$0")/lib/finding.sh"
python_packages duckdb==2.0.1 datafusion==55.0.0 polars==2.1.0 fastparquet==2026.9.0 pyarrow==26.0.1
seen=$(timeout 120 "$WORK/venv/bin/python" - "$WORK/records.parquet" <<'PYTHON'
import sys

import datafusion
import duckdb
import fastparquet
import polars
import pyarrow
import pyarrow.parquet

path = sys.argv[1]
headers = pyarrow.array([[("trace", "first"), ("trace", "last")]], pyarrow.map_(pyarrow.string(), pyarrow.string()))
pyarrow.parquet.write_table(pyarrow.table({"headers": headers}), path)
query = "SELECT headers['trace'] AS value, cardinality(headers) AS keys FROM "
print("duckdb:", duckdb.sql(f"{query} '{path}'").fetchall()[0])
session = datafusion.SessionContext()
session.register_parquet("records", path)
print("datafusion:", tuple(session.sql(f"{query} records").to_pylist()[0].values()))
print("polars:", polars.read_parquet(path).to_dicts()[0]["headers"])
print("fastparquet:", fastparquet.ParquetFile(path).to_pandas()["headers"][0])
print("pyarrow:", pyarrow.parquet.read_table(path).to_pylist()[0]["headers"])
try:
    print("duckdb, whole:", duckdb.sql(f"SELECT headers FROM '{path}'").fetchall())
except duckdb.Error as error:
    print("duckdb, whole:", error)
PYTHON
)
verdict "duckdb: ('first', 2)
datafusion: ('first', 2)
polars: {'trace': 'last'}
fastparquet: {'trace': 'last'}
pyarrow: [('trace', 'first'), ('trace', 'last')]
duckdb, whole: Invalid Input Error: Map keys must be unique." "$seen"
