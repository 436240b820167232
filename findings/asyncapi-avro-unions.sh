#!/usr/bin/env bash
# surprise: AsyncAPI's Avro parser makes a schema by which 5 is no "int or double", and a step's predecessor may be "x" but not null.
# versions: npm @asyncapi/avro-schema-parser 3.1.0, @asyncapi/parser 3.6.6, ajv 8.20.0 (on node 20 or newer); PyPI
#   fastavro 1.13.1 for comparison
# expected: a JSON Schema that takes what the Avro schema takes: a value of a union is one of any of its branches, which JSON Schema
#   says with anyOf, and a record's reference to itself is that record.
# does: a union becomes oneOf, exactly one: numbers that are whole, symbols of an enum beside a string, and records that have the
#   fields of another branch are refused by each consumer that validates messages with the schema of the document. A record that
#   names itself becomes a schema that takes anything, so that in ["null", "Step"] null is the one value that is refused.

. "$(dirname "$0")/lib/finding.sh"
python_packages fastavro==1.13.1
node_packages @asyncapi/avro-schema-parser@3.1.0 @asyncapi/parser@3.6.6 ajv@8.20.0
cat >"$WORK/cases.json" <<'JSON'
[
  [[{"name": "cost", "type": ["int", "double"]}], {"cost": 1.5}, {"cost": 5}],
  [[{"name": "kind", "type": [{"type": "enum", "name": "Kind", "symbols": ["text"]}, "string"]}], {"kind": "other"}, {"kind": "text"}],
  [
    [{"name": "item", "type": [
      {"type": "record", "name": "Text", "fields": [{"name": "id", "type": "int"}]},
      {"type": "record", "name": "Call", "fields": [{"name": "id", "type": "int"}, {"name": "tool", "type": "string"}]}
    ]}],
    {"item": {"id": 1}}, {"item": {"id": 1, "tool": "find"}}
  ],
  [[{"name": "before", "type": ["null", "Step"]}], {"before": {"before": null}}, {"before": null}, {"before": "x"}]
]
JSON
cat >"$WORK/node/read.mjs" <<'NODE'
import fs from "fs";
import { AvroSchemaParser } from "@asyncapi/avro-schema-parser";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";

const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
for (const [fields, ...values] of JSON.parse(fs.readFileSync(0))) {
  const payload = { schemaFormat: "application/vnd.apache.avro;version=1.9.0", schema: { type: "record", name: "Step", fields } };
  const channels = { steps: { address: "steps", messages: { step: { payload } } } };
  const { document } = await parser.parse({ asyncapi: "3.0.0", info: { title: "Runs", version: "1" }, channels });
  const schema = document.allMessages().all()[0].payload().json().schema;
  const validate = new Ajv({ strict: false, validateFormats: false }).compile(schema);
  for (const value of values) console.log(JSON.stringify(value), validate(value) ? "valid" : "refused", "by AsyncAPI's schema");
}
NODE
seen=$(
  timeout 60 "$WORK/venv/bin/python" - "$WORK/cases.json" <<'PYTHON'
import json
import pathlib
import sys

import fastavro

for fields, *values in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    schema = fastavro.parse_schema({"type": "record", "name": "Step", "fields": fields})
    for value in values:
        good = fastavro.validate(value, schema, raise_errors=False)
        print(json.dumps(value, separators=(",", ":")), "valid" if good else "refused", "in Avro")
PYTHON
  (cd "$WORK/node" && timeout 60 node read.mjs <"$WORK/cases.json")
)
verdict "{\"cost\":1.5} valid in Avro
{\"cost\":5} valid in Avro
{\"kind\":\"other\"} valid in Avro
{\"kind\":\"text\"} valid in Avro
{\"item\":{\"id\":1}} valid in Avro
{\"item\":{\"id\":1,\"tool\":\"find\"}} valid in Avro
{\"before\":{\"before\":null}} valid in Avro
{\"before\":null} valid in Avro
{\"before\":\"x\"} refused in Avro
{\"cost\":1.5} valid by AsyncAPI's schema
{\"cost\":5} refused by AsyncAPI's schema
{\"kind\":\"other\"} valid by AsyncAPI's schema
{\"kind\":\"text\"} refused by AsyncAPI's schema
{\"item\":{\"id\":1}} valid by AsyncAPI's schema
{\"item\":{\"id\":1,\"tool\":\"find\"}} refused by AsyncAPI's schema
{\"before\":{\"before\":null}} valid by AsyncAPI's schema
{\"before\":null} refused by AsyncAPI's schema
{\"before\":\"x\"} valid by AsyncAPI's schema" "$seen"
