#!/usr/bin/env bash
# surprise: hyparquet-writer keeps the id 9007199254740993n in a column of its own, and writes 9007199254740992 inside an object or a list.
# versions: npm hyparquet-writer 0.17.0 (on node 20 or newer); PyPI pyarrow 26.0.1 reads
# expected: one id, as a BigInt is what a program keeps ids in that a number has no room for; or an error, as JSON.stringify gives for a
#   BigInt. JSON itself bounds no integer.
# does: objects and lists become a JSON column by themselves, with each BigInt made a number first. An id of a step in its record is
#   another one than in the column beside it, those above 2^53 meet in pairs, and those near 2^64 in thousands. Bytes become
#   a list of numbers there, so that a header's value is neither text nor base64.

. "$(dirname "$0")/lib/finding.sh"
node_packages hyparquet-writer@0.17.0
python_packages pyarrow==26.0.1
cat >"$WORK/node/write.mjs" <<'NODE'
import { writeFileSync } from "node:fs";
import { parquetWriteBuffer } from "hyparquet-writer";

const ids = [9007199254740993n, 9223372036854775807n];
const columnData = [
  { name: "id", data: ids },
  { name: "object", data: ids.map((id) => ({ id, header: new Uint8Array([55, 48]) })) },
  { name: "list", data: ids.map((id) => [id]) },
];
writeFileSync(process.argv[2], Buffer.from(parquetWriteBuffer({ columnData })));
try {
  JSON.stringify(ids);
} catch (error) {
  console.log(`JSON.stringify: ${error.message}`);
}
NODE
seen=$(
  (cd "$WORK/node" && timeout 60 node write.mjs "$WORK/steps.parquet")
  timeout 60 "$WORK/venv/bin/python" - "$WORK/steps.parquet" <<'PYTHON'
import sys

import pyarrow.parquet

table = pyarrow.parquet.read_table(sys.argv[1])
for column in table.column_names:
    print(f"{column}:", *table[column].to_pylist())
PYTHON
)
verdict 'JSON.stringify: Do not know how to serialize a BigInt
id: 9007199254740993 9223372036854775807
object: {"id":9007199254740992,"header":[55,48]} {"id":9223372036854776000,"header":[55,48]}
list: [9007199254740992] [9223372036854776000]' "$seen"
