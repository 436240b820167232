#!/usr/bin/env bash
# surprise: An archive that was appended to, as gzip, LZ4 and zstd files may be, has one record of four to fflate, lz4js and others.
# versions: npm fflate 0.8.3, lz4js 0.2.0, pako 3.0.3 and fzstd 0.1.1 for comparison (on node 20 or newer); PyPI lz4 4.4.5,
#   zstandard 0.25.0, cramjam 2.14.0 for comparison
# expected: 4 records. A gzip file "consists of a series of members" (RFC 1952), a zstd file of one or more frames, whose contents
#   belong one behind the other (RFC 8878), and LZ4 frames may be concatenated, by the frame format's description: so a program may
#   append to a compressed file, and the command line tools give all of it back.
# does: fflate's gunzipSync, lz4js, and decompress() of Python's lz4.frame and zstandard give the first part and no error. Their other
#   ways read on: fflate's Gunzip, lz4.frame.open and zstandard.open. (zstandard's manual tells of it.)

. "$(dirname "$0")/lib/finding.sh"
python_packages lz4==4.4.5 zstandard==0.25.0 cramjam==2.14.0
node_packages fflate@0.8.3 lz4js@0.2.0 pako@3.0.3 fzstd@0.1.1
cat >"$WORK/read.py" <<'PYTHON'
import gzip
import os
import sys

import cramjam
import lz4.frame
import zstandard

os.chdir(sys.argv[1])
records = [b'{"offset": %d}\n' % offset for offset in range(4)]
for name, compress in (("gz", gzip.compress), ("lz4", lz4.frame.compress), ("zst", zstandard.compress)):
    with open(f"records.{name}", "wb") as archive:
        archive.write(b"".join(map(compress, records)))


def stored(name):
    with open(f"records.{name}", "rb") as archive:
        return archive.read()


for name, read in {
    "gz, gzip.decompress": lambda: gzip.decompress(stored("gz")),
    "lz4, lz4.frame.decompress": lambda: lz4.frame.decompress(stored("lz4")),
    "lz4, lz4.frame.open": lambda: lz4.frame.open("records.lz4").read(),
    "lz4, cramjam": lambda: bytes(cramjam.lz4.decompress(stored("lz4"))),
    "zst, zstandard.decompress": lambda: zstandard.decompress(stored("zst")),
    "zst, zstandard.open": lambda: zstandard.open("records.zst", "rb").read(),
    "zst, cramjam": lambda: bytes(cramjam.zstd.decompress(stored("zst"))),
}.items():
    print(f"{name} (Python): {read().count(b'offset')}")
PYTHON
cat >"$WORK/node/read.mjs" <<'JS'
import {readFileSync} from "node:fs";
import {Gunzip, gunzipSync} from "fflate";
import {decompress as fzstd} from "fzstd";
import lz4js from "lz4js";
import {ungzip} from "pako";

const stored = name => readFileSync(`${process.argv[2]}/records.${name}`);
const streamed = bytes => {
  const parts = [];
  new Gunzip(part => parts.push(part)).push(bytes, true);
  return Buffer.concat(parts);
};
for (const [name, text] of Object.entries({
  "gz, fflate.gunzipSync": gunzipSync(stored("gz")),
  "gz, fflate.Gunzip": streamed(stored("gz")),
  "gz, pako": ungzip(stored("gz")),
  "lz4, lz4js": lz4js.decompress(stored("lz4")),
  "zst, fzstd": fzstd(stored("zst")),
})) console.log(`${name} (JavaScript): ${Buffer.from(text).toString().split("offset").length - 1}`);
JS
seen=$({
  timeout 60 "$WORK/venv/bin/python" "$WORK/read.py" "$WORK"
  timeout 60 node "$WORK/node/read.mjs" "$WORK"
} | LC_ALL=C sort)
verdict "gz, fflate.Gunzip (JavaScript): 4
gz, fflate.gunzipSync (JavaScript): 1
gz, gzip.decompress (Python): 4
gz, pako (JavaScript): 4
lz4, cramjam (Python): 4
lz4, lz4.frame.decompress (Python): 1
lz4, lz4.frame.open (Python): 4
lz4, lz4js (JavaScript): 1
zst, cramjam (Python): 4
zst, fzstd (JavaScript): 4
zst, zstandard.decompress (Python): 1
zst, zstandard.open (Python): 4" "$seen"
