#!/usr/bin/env bash
# surprise: fflate's gunzipSync reads 16 of 1,506 bytes of a gzip file to which one record was appended, and raises nothing.
# versions: npm fflate 0.8.3, pako 3.0.3 for comparison (on node 20 or newer); PyPI deflate 0.9.0, isal 1.9.1 for comparison
# expected: 101 records. By RFC 1952 a gzip file is a series of members, one behind the other, so that a program appends to a log by
#   writing one more member; gzip -d, zlib of Node, Python's gzip and the two for comparison read all.
# does: gunzipSync, gunzip and decompressSync of fflate read the first member alone, and no more of it than the last four bytes of the
#   file say that the last member has: the second record ends after two letters. fflate's streaming Gunzip reads all. PyPI's deflate
#   gives the first member if the last is as long or longer, and raises an error if it is shorter.

. "$(dirname "$0")/lib/finding.sh"
python_packages deflate==0.9.0 isal==1.9.1
node_packages fflate@0.8.3 pako@3.0.3
cat >"$WORK/read.py" <<'PYTHON'
import gzip
import sys

import deflate
from isal import igzip


def shown(read):
    try:
        return f"{read().count(b'}')} records"
    except deflate.DeflateError as error:
        return type(error).__name__


for name, first, second in (("100 records, then 1", 100, 1), ("1 record, then 100", 1, 100)):
    lines = [b'{"offset": %d}\n' % offset for offset in range(first + second)]
    archive = gzip.compress(b"".join(lines[:first])) + gzip.compress(b"".join(lines[first:]))
    with open(f"{sys.argv[1]}/{name}.gz", "wb") as file:
        file.write(archive)
    print(f"{name}, deflate:", shown(lambda: deflate.gzip_decompress(archive)))
    print(f"{name}, isal:", shown(lambda: igzip.decompress(archive)))
PYTHON
cat >"$WORK/node/read.mjs" <<'JS'
import {readFileSync} from "node:fs";
import {Gunzip, gunzipSync} from "fflate";
import {ungzip} from "pako";

const streamed = bytes => {
  const parts = [];
  new Gunzip(part => parts.push(part)).push(bytes, true);
  return Buffer.concat(parts);
};
for (const name of ["100 records, then 1", "1 record, then 100"]) {
  const archive = readFileSync(`${process.argv[2]}/${name}.gz`);
  const read = {"fflate's gunzipSync": gunzipSync(archive), "fflate's Gunzip": streamed(archive), pako: ungzip(archive)};
  for (const [library, bytes] of Object.entries(read)) {
    const text = Buffer.from(bytes).toString();
    console.log(`${name}, ${library}: ${text.split("}").length - 1} records in ${bytes.length} bytes`);
  }
}
JS
seen=$(
  timeout 60 "$WORK/venv/bin/python" "$WORK/read.py" "$WORK"
  timeout 60 node "$WORK/node/read.mjs" "$WORK"
)
verdict "100 records, then 1, deflate: DeflateError
100 records, then 1, isal: 101 records
1 record, then 100, deflate: 1 records
1 record, then 100, isal: 101 records
100 records, then 1, fflate's gunzipSync: 1 records in 16 bytes
100 records, then 1, fflate's Gunzip: 101 records in 1506 bytes
100 records, then 1, pako: 101 records in 1506 bytes
1 record, then 100, fflate's gunzipSync: 1 records in 14 bytes
1 record, then 100, fflate's Gunzip: 101 records in 1506 bytes
1 record, then 100, pako: 101 records in 1506 bytes" "$seen"
