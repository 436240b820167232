#!/usr/bin/env bash
# surprise: One time with seven digits is of 2027 in msgspec and DuckDB's milliseconds, of 2026 in pydantic, Polars and DuckDB's microseconds.
# versions: PyPI msgspec 0.23.0, pydantic 2.14.4, duckdb 2.0.1, polars 2.1.0
# expected: one answer. .NET writes times with seven digits of the second, so what comes from services on Azure has them; whoever
#   keeps six or three rounds or cuts, and a time is in one year.
# does: to microseconds msgspec rounds, and pydantic, Polars and DuckDB's TIMESTAMP cut; to milliseconds DuckDB rounds, by a cast and
#   by epoch_ms(), and Polars cuts. A time compared with itself, as another tool read it, differs by a unit, and at midnight so do
#   the day, the folder of the day and the sum of the month.

. "$(dirname "$0")/lib/finding.sh"
python_packages msgspec==0.23.0 pydantic==2.14.4 duckdb==2.0.1 polars==2.1.0
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import datetime

import duckdb
import msgspec
import polars
import pydantic

for text in ("2026-12-31T23:59:59.9999999Z", "2026-06-01T00:00:00.0004565Z"):
    print(text)
    print("  msgspec", msgspec.json.decode(f'"{text}"', type=datetime.datetime).isoformat())
    print("  pydantic", pydantic.TypeAdapter(datetime.datetime).validate_json(f'"{text}"').isoformat())
    micro, milli, epoch = f"'{text}'::TIMESTAMP", f"'{text}'::TIMESTAMP_MS", f"make_timestamp_ms(epoch_ms('{text}'::TIMESTAMP))"
    for name, cast in (("TIMESTAMP", micro), ("TIMESTAMP_MS", milli), ("epoch_ms()", epoch)):
        print("  duckdb", name, duckdb.sql(f"SELECT {cast}").fetchall()[0][0].isoformat())
    for unit in ("us", "ms"):
        print("  polars", unit, polars.Series([text]).str.to_datetime(time_unit=unit, time_zone="UTC")[0].isoformat())
PYTHON
)
verdict "2026-12-31T23:59:59.9999999Z
  msgspec 2027-01-01T00:00:00+00:00
  pydantic 2026-12-31T23:59:59.999999+00:00
  duckdb TIMESTAMP 2026-12-31T23:59:59.999999
  duckdb TIMESTAMP_MS 2027-01-01T00:00:00
  duckdb epoch_ms() 2027-01-01T00:00:00
  polars us 2026-12-31T23:59:59.999999+00:00
  polars ms 2026-12-31T23:59:59.999000+00:00
2026-06-01T00:00:00.0004565Z
  msgspec 2026-06-01T00:00:00.000457+00:00
  pydantic 2026-06-01T00:00:00.000456+00:00
  duckdb TIMESTAMP 2026-06-01T00:00:00.000456
  duckdb TIMESTAMP_MS 2026-06-01T00:00:00
  duckdb epoch_ms() 2026-06-01T00:00:00
  polars us 2026-06-01T00:00:00.000456+00:00
  polars ms 2026-06-01T00:00:00+00:00" "$seen"
