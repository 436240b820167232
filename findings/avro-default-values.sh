#!/usr/bin/env bash
# surprise: A default of "\u00ff" is the byte ff to Avro readers in Go and Node, c3 bf to Python's avro, and a text to fastavro.
# versions: PyPI fastavro 1.13.1, avro 1.12.2; npm avsc 5.7.9 (on node 20 or newer); Go github.com/hamba/avro/v2 v2.31.0
# expected: values of the field's type. A reader's schema that has a field which the file has not gives its default, and by the
#   specification the default of bytes and fixed is a text whose code points 0 to 255 are the bytes 0 to 255.
# does: a field that came later is bytes in new files and something else in old ones. fastavro hands out the schema's text, for
#   a decimal, too; Python's avro encodes it as UTF-8, so that a fixed of two bytes has four and a decimal is other bytes,
#   undecoded. A time is its bare number in both. (For bytes and fixed reported as fastavro issue 869.)

. "$(dirname "$0")/lib/finding.sh"
python_packages fastavro==1.13.1 avro==1.12.2
node_packages avsc@5.7.9
cat >"$WORK/new.avsc" <<'JSON'
{"type": "record", "name": "Run", "fields": [
  {"name": "id", "type": "long"},
  {"name": "sign", "type": "bytes", "default": "\u00ff"},
  {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}, "default": "\u00ff\u00fe"},
  {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u0001\u00ff"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 1000}
]}
JSON
cat >"$WORK/node/read.mjs" <<'NODE'
import avsc from "avsc";
import fs from "fs";

const old = avsc.Type.forSchema({ type: "record", name: "Run", fields: [{ name: "id", type: "long" }] });
const now = avsc.Type.forSchema(JSON.parse(fs.readFileSync(process.argv[2])));
const run = now.fromBuffer(old.toBuffer({ id: 1 }), now.createResolver(old));
console.log("avsc:", ...[run.sign, run.hash, run.price].map((bytes) => bytes.toString("hex")), run.at);
NODE
go_program github.com/hamba/avro/v2@v2.31.0 <<'GO'
package main

import (
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/hamba/avro/v2"
)

func main() {
	old := avro.MustParse(`{"type": "record", "name": "Run", "fields": [{"name": "id", "type": "long"}]}`)
	text, _ := os.ReadFile(os.Args[1])
	both, err := avro.NewSchemaCompatibility().Resolve(avro.MustParse(string(text)), old)
	if err != nil {
		panic(err)
	}
	data, _ := avro.Marshal(old, map[string]any{"id": int64(1)})
	var run map[string]any
	if err := avro.Unmarshal(both, data, &run); err != nil {
		panic(err)
	}
	price, at := run["price"].(*big.Rat), run["at"].(time.Time)
	fmt.Printf("hamba/avro: %x %x %s %s\n", run["sign"], run["hash"], price.FloatString(2), at.UTC().Format(time.RFC3339))
}
GO
seen=$(
  timeout 60 "$WORK/venv/bin/python" - "$WORK/new.avsc" <<'PYTHON'
import io
import json
import pathlib
import sys

import avro.datafile
import avro.io
import avro.schema
import fastavro

text = pathlib.Path(sys.argv[1]).read_text()
old = {"type": "record", "name": "Run", "fields": [{"name": "id", "type": "long"}]}
file = io.BytesIO()
fastavro.writer(file, old, [{"id": 1}])
file.seek(0)
runs = {"fastavro": next(fastavro.reader(file, json.loads(text)))}
file.seek(0)
runs["avro"] = next(avro.datafile.DataFileReader(file, avro.io.DatumReader(None, avro.schema.parse(text))))
for name, run in runs.items():
    print(f"{name}:", *(ascii(run[field]) for field in ("sign", "hash", "price", "at")))
PYTHON
  (cd "$WORK/node" && timeout 60 node read.mjs "$WORK/new.avsc")
  timeout 60 "$WORK/go/program" "$WORK/new.avsc"
)
verdict "fastavro: '\\xff' '\\xff\\xfe' '\\x01\\xff' 1000
avro: b'\\xc3\\xbf' b'\\xc3\\xbf\\xc3\\xbe' b'\\x01\\xc3\\xbf' 1000
avsc: ff fffe 01ff 1000
hamba/avro: ff fffe 5.11 1970-01-01T00:00:01Z" "$seen"
