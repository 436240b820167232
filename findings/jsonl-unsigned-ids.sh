#!/usr/bin/env bash
# surprise: One id above 2^63 in JSON lines, and pyarrow and DataFusion read all ids as doubles: of two runs they make one.
# versions: PyPI pyarrow 26.0.1, datafusion 55.0.0; polars 2.1.0, duckdb 2.0.1 for comparison
# expected: three ids, or an error. pyarrow's documentation of its JSON reader has numbers fall back to doubles once one that is
#   no integer is met, and these are integers: hashes and ids of 64 bits without a sign, such as those of XXH64.
# does: what does not fit in 64 bits with a sign makes a double column of all numbers beside it, and a double has 53 bits, so
#   that ids that fitted are other ones, too, and joins and groups put runs together. Without the third line both read the first
#   two exactly. Polars and DuckDB take a wider integer.

. "$(dirname "$0")/lib/finding.sh"
python_packages pyarrow==26.0.1 datafusion==55.0.0 polars==2.1.0 duckdb==2.0.1
seen=$(cd "$WORK" && timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import pathlib

import datafusion
import duckdb
import polars
import pyarrow.json

IDS = [7203685477580700001, 7203685477580700002, 17293822569102704640]
READERS = {
    "pyarrow": lambda name: pyarrow.json.read_json(name)["id"].to_pylist(),
    "datafusion": lambda name: datafusion.SessionContext().read_json(name, file_extension=".jsonl").to_pydict()["id"],
    "polars": lambda name: polars.read_ndjson(name)["id"].to_list(),
    "duckdb": lambda name: [number for (number,) in duckdb.sql(f"select id from '{name}'").fetchall()],
}
for count in (2, 3):
    name = f"{count}.jsonl"
    pathlib.Path(name).write_text("".join(f'{{"id":{number}}}\n' for number in IDS[:count]))
    for reader, read in READERS.items():
        ids = read(name)
        same = "the ids" if ids == IDS[:count] else f"{ids[0]!r}, {ids[1]!r}, ..."
        print(f"{count} lines, {reader}: {len(set(ids))} ids, {same}")
PYTHON
)
verdict '2 lines, pyarrow: 2 ids, the ids
2 lines, datafusion: 2 ids, the ids
2 lines, polars: 2 ids, the ids
2 lines, duckdb: 2 ids, the ids
3 lines, pyarrow: 2 ids, 7.2036854775807e+18, 7.2036854775807e+18, ...
3 lines, datafusion: 2 ids, 7.2036854775807e+18, 7.2036854775807e+18, ...
3 lines, polars: 3 ids, the ids
3 lines, duckdb: 3 ids, the ids' "$seen"
