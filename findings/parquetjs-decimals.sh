#!/usr/bin/env bash
# surprise: parquetjs writes a price of 19.99 as 19.98, and with a precision up to 9 reads each price that it wrote as two.
# versions: npm @dsnp/parquetjs 1.8.8 (on node 20 or newer); PyPI pyarrow 26.0.1 reads and writes for comparison
# expected: the decimals that were given, rounded to the two digits of the column's scale where there are more; and a reader and a
#   writer of one package that agree how many bytes a value has, which the file's schema says, too.
# does: it multiplies by 100 and cuts, so that 19.99 (1998.9999999999998) is a cent less, as are 573 of the 10,001 prices from 0 to
#   100.00. Up to a precision of 9 it writes 8 bytes a value, declares an int64, and reads 4: the halves of a number become two,
#   as many rows come as should, and the last prices are gone. What pyarrow writes as int32 or int64 it reads well.

. "$(dirname "$0")/lib/finding.sh"
node_packages @dsnp/parquetjs@1.8.8
python_packages pyarrow==26.0.1
cat >"$WORK/node/write.js" <<'NODE'
const { ParquetReader, ParquetSchema, ParquetWriter } = require('@dsnp/parquetjs')

async function write(file, precision, prices) {
  const schema = new ParquetSchema({ price: { type: 'DECIMAL', precision, scale: 2 } })
  const writer = await ParquetWriter.openFile(schema, file)
  for (const price of prices) await writer.appendRow({ price })
  await writer.close()
}

async function read(file) {
  const reader = await ParquetReader.openFile(file), cursor = reader.getCursor(), prices = []
  for (let row = await cursor.next(); row; row = await cursor.next()) prices.push(row.price)
  await reader.close()
  return prices.join(' ')
}

(async () => {
  const folder = process.argv[2], prices = [0.29, 1.1, -0.29, 19.99, -5, 3]
  for (const precision of [9, 18]) {
    await write(`${folder}/own-${precision}`, precision, prices)
    console.log(`precision ${precision}, parquetjs reads its own:`, await read(`${folder}/own-${precision}`))
    console.log(`precision ${precision}, parquetjs reads pyarrow's:`, await read(`${folder}/arrow-${precision}`))
  }
  await write(`${folder}/all`, 18, Array.from({ length: 10001 }, (_, cents) => cents / 100))
})()
NODE
seen=$(timeout 120 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import decimal
import subprocess
import sys

import pyarrow as pa
from pyarrow import parquet

folder = sys.argv[1]
prices = [decimal.Decimal(price) for price in ("0.29", "1.10", "-0.29", "19.99", "-5.00", "3.00")]
for precision in (9, 18):
    table = pa.table({"price": pa.array(prices, pa.decimal128(precision, 2))})
    parquet.write_table(table, f"{folder}/arrow-{precision}", store_decimal_as_integer=True, use_dictionary=False)
subprocess.run(["node", "write.js", folder], cwd=f"{folder}/node", check=True)
for precision in (9, 18):
    read = parquet.read_table(f"{folder}/own-{precision}")["price"].to_pylist()
    print(f"precision {precision}, pyarrow reads parquetjs':", *read)
read = parquet.read_table(f"{folder}/all")["price"].to_pylist()
print("another price:", sum(100 * price != cents for cents, price in enumerate(read)), "of", len(read))
PYTHON
)
verdict "precision 9, parquetjs reads its own: 0.28 0 1.1 0 -0.29 -0.01
precision 9, parquetjs reads pyarrow's: 0.29 1.1 -0.29 19.99 -5 3
precision 18, parquetjs reads its own: 0.28 1.1 -0.29 19.98 -5 3
precision 18, parquetjs reads pyarrow's: 0.29 1.1 -0.29 19.99 -5 3
precision 9, pyarrow reads parquetjs': 0.28 1.10 -0.29 19.98 -5.00 3.00
precision 18, pyarrow reads parquetjs': 0.28 1.10 -0.29 19.98 -5.00 3.00
another price: 573 of 10001" "$seen"
