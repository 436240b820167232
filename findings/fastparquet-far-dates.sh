#!/usr/bin/env bash
# surprise: fastparquet reads the date 9999-12-31 as a day of 1816 and 1600-01-01 as one of 2184, as does pyarrow with INT96 times.
# versions: PyPI fastparquet 2026.9.0, pandas 3.1.1, pyarrow 26.0.1 (writes, too); duckdb 2.0.1, polars 2.1.0 for comparison
# expected: the dates that are in the file, or an error: Parquet's DATE is a count of days in 32 bits, its INT96 a day and a time
#   of that day. 9999-12-31 is what stands in archives for "never", such as the end of a retention.
# does: both are turned into nanoseconds since 1970, of which 64 bits hold the years 1677 to 2262, and what is beyond wraps around
#   without an error. fastparquet keeps the same moments whole as timestamps of microseconds, and pyarrow refuses them when asked
#   for nanoseconds; with coerce_int96_timestamp_unit="us" it reads INT96 as it was written.

. "$(dirname "$0")/lib/finding.sh"
python_packages fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0
seen=$(cd "$WORK" && timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import datetime

import duckdb
import fastparquet
import polars
import pyarrow
import pyarrow.parquet

DAYS = [datetime.date(9999, 12, 31), datetime.date(1600, 1, 1)]
TIMES = [datetime.datetime.combine(day, datetime.time()) for day in DAYS]
FILES = {
    "DATE": (pyarrow.array(DAYS, pyarrow.date32()), False), "INT64": (pyarrow.array(TIMES, pyarrow.timestamp("us")), False),
    "INT96": (pyarrow.array(TIMES, pyarrow.timestamp("us")), True),
}
READERS = {
    "fastparquet": lambda name: list(fastparquet.ParquetFile(name).to_pandas()["day"]),
    "pyarrow": lambda name: pyarrow.parquet.read_table(name)["day"].to_pylist(),
    "duckdb": lambda name: [day for (day,) in duckdb.sql(f"select day from '{name}'").fetchall()],
    "polars": lambda name: polars.read_parquet(name)["day"].to_list(),
}
for kind, (column, int96) in FILES.items():
    pyarrow.parquet.write_table(pyarrow.table({"day": column}), f"{kind}.parquet", use_deprecated_int96_timestamps=int96)
    for reader, read in READERS.items():
        print(f"{kind}, {reader}:", *(day.isoformat()[:10] for day in read(f"{kind}.parquet")))
try:
    pyarrow.array(TIMES, pyarrow.timestamp("us")).cast(pyarrow.timestamp("ns"))
except pyarrow.ArrowInvalid:
    print("pyarrow, cast to nanoseconds: ArrowInvalid")
PYTHON
)
verdict 'DATE, fastparquet: 1816-03-29 2184-07-20
DATE, pyarrow: 9999-12-31 1600-01-01
DATE, duckdb: 9999-12-31 1600-01-01
DATE, polars: 9999-12-31 1600-01-01
INT64, fastparquet: 9999-12-31 1600-01-01
INT64, pyarrow: 9999-12-31 1600-01-01
INT64, duckdb: 9999-12-31 1600-01-01
INT64, polars: 9999-12-31 1600-01-01
INT96, fastparquet: 1816-03-29 2184-07-20
INT96, pyarrow: 1816-03-29 2184-07-20
INT96, duckdb: 9999-12-31 1600-01-01
INT96, polars: 9999-12-31 1600-01-01
pyarrow, cast to nanoseconds: ArrowInvalid' "$seen"
