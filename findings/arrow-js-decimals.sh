#!/usr/bin/env bash
# surprise: Apache Arrow for JavaScript gives the decimal 12.34 as 1234, and hyparquet keeps three digits of the second.
# versions: npm apache-arrow 21.2.0, hyparquet 1.33.0 (on node 20 or newer); PyPI pyarrow 26.0.1 writes
# expected: the decimals that were written, 12.34 and 0.05, and times to the microsecond that the column has.
# does: apache-arrow hands out a decimal's digits without its scale, as a text, as a number and in JSON: columns of different scales
#   are off by different powers of ten (reported as apache/arrow-js issue 77). hyparquet makes a Date of a timestamp and a
#   double of a decimal: records a microsecond apart have one time, digits behind the 16th are others.

. "$(dirname "$0")/lib/finding.sh"
python_packages pyarrow==26.0.1
node_packages apache-arrow@21.2.0 hyparquet@1.33.0
timeout 60 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import decimal
import sys

import pyarrow
import pyarrow.parquet

table = pyarrow.table(
    {
        "cost": pyarrow.array([decimal.Decimal("12.34"), decimal.Decimal("0.05")], pyarrow.decimal128(10, 2)),
        "total": pyarrow.array([decimal.Decimal("12345678901234567.89")] * 2, pyarrow.decimal128(38, 2)),
        "time": pyarrow.array([1_790_000_000_123_456, 1_790_000_000_123_457], pyarrow.timestamp("us", "UTC")),
    }
)
pyarrow.parquet.write_table(table, f"{sys.argv[1]}/costs.parquet")
with pyarrow.ipc.new_file(f"{sys.argv[1]}/costs.arrow", table.schema) as file:
    file.write_table(table)
PYTHON
cat >"$WORK/node/read.mjs" <<'NODE'
import fs from 'fs'
import { tableFromIPC } from 'apache-arrow'
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'

for (const row of tableFromIPC(fs.readFileSync('costs.arrow'))) {
  console.log('apache-arrow', String(row.cost), Number(row.cost), JSON.stringify(row.cost), String(row.total))
}
for (const row of await parquetReadObjects({ file: await asyncBufferFromFile('costs.parquet') })) {
  console.log('hyparquet', row.cost, row.total, row.time.toISOString())
}
NODE
verdict 'apache-arrow 1234 1234 "\"1234\"" 1234567890123456789
apache-arrow 5 5 "\"5\"" 1234567890123456789
hyparquet 12.34 12345678901234568 2026-09-21T14:13:20.123Z
hyparquet 0.05 12345678901234568 2026-09-21T14:13:20.123Z' "$(cd "$WORK/node" && timeout 60 node read.mjs)"
