#!/usr/bin/env bash
# surprise: deltalake appends 1.9 to a column of integers as 1, and a count of seconds to one of times as microseconds.
# versions: PyPI deltalake 1.6.6, pyarrow 26.0.1
# expected: an error, as Delta Lake is a format with a schema that is enforced on write: the appended types are not the table's.
#   deltalake does refuse what shows at once, text that is no number and integers that the column cannot hold.
# does: it casts silently, with schema_mode="merge", too, nested fields included: fractions are cut, 7 is True, integers above
#   2^53 are rounded, and seconds since 1970 of November 2026 become half an hour past midnight of 1 January 1970.

. "$(dirname "$0")/lib/finding.sh"
python_packages deltalake==1.6.6 pyarrow==26.0.1
seen=$(timeout 120 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import datetime
import itertools
import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

folders = (f"{sys.argv[1]}/table-{number}" for number in itertools.count())
TIMES = pa.timestamp("us", tz="UTC")
first = datetime.datetime(2026, 11, 30, 5, tzinfo=datetime.UTC)
for name, has, appended in (
    ("cents", pa.array([5], pa.int64()), pa.array([1.9])),
    ("usage", pa.array([{"cents": 5}]), pa.array([{"cents": 1.9}])),
    ("done", pa.array([False]), pa.array([7])),
    ("score", pa.array([0.5]), pa.array([9007199254740993])),
    ("at", pa.array([first], TIMES), pa.array([1796014800])),
    ("cents", pa.array([5], pa.int32()), pa.array([2**40])),
    ("cents", pa.array([5], pa.int64()), pa.array(["x"])),
):
    for mode in (None, "merge"):
        folder = next(folders)
        write_deltalake(folder, pa.table({name: has}))
        try:
            write_deltalake(folder, pa.table({name: appended}), mode="append", schema_mode=mode)
            values = DeltaTable(folder).to_pyarrow_table()[name].to_pylist()
            values.remove(has[0].as_py())
        except Exception:
            values = ["refused"]
        print(f"{has.type}, {mode}: {appended.to_pylist()} ->", *values)
PYTHON
)
verdict "int64, None: [1.9] -> 1
int64, merge: [1.9] -> 1
struct<cents: int64>, None: [{'cents': 1.9}] -> {'cents': 1}
struct<cents: int64>, merge: [{'cents': 1.9}] -> {'cents': 1}
bool, None: [7] -> True
bool, merge: [7] -> True
double, None: [9007199254740993] -> 9007199254740992.0
double, merge: [9007199254740993] -> 9007199254740992.0
timestamp[us, tz=UTC], None: [1796014800] -> 1970-01-01 00:29:56.014800+00:00
timestamp[us, tz=UTC], merge: [1796014800] -> 1970-01-01 00:29:56.014800+00:00
int32, None: [1099511627776] -> refused
int32, merge: [1099511627776] -> refused
int64, None: ['x'] -> refused
int64, merge: ['x'] -> refused" "$seen"
