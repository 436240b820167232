#!/usr/bin/env bash
# surprise: Python's avro writes an integer as the double of a union of long and double, fastavro as that of double and long.
# versions: PyPI fastavro 1.13.1, avro 1.12.2
# expected: the value that was given, as each union here has a branch of exactly its type. The first is that of the properties of an
#   event in Event Hubs Capture.
# does: of the branches that can hold the value, fastavro takes the first and avro the last. Both let a double hold any integer,
#   which rounds it beyond 2^53, and avro lets a long hold True, which comes back as 1. fastavro's (type, value) pairs name the branch.

. "$(dirname "$0")/lib/finding.sh"
python_packages fastavro==1.13.1 avro==1.12.2
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import io
import json

import avro.io
import avro.schema
import fastavro

for branches, value in (
    (["long", "double", "string", "bytes"], 9007199254740993),
    (["null", "long"], 9007199254740993),
    (["double", "long"], 9007199254740993),
    (["boolean", "long"], True),
):
    schema = {"type": "record", "name": "Order", "fields": [{"name": "value", "type": branches}]}
    parsed = fastavro.parse_schema(schema)
    written = {"fastavro": io.BytesIO(), "avro": io.BytesIO()}
    fastavro.schemaless_writer(written["fastavro"], parsed, {"value": value})
    writer = avro.io.DatumWriter(avro.schema.parse(json.dumps(schema)))
    writer.write({"value": value}, avro.io.BinaryEncoder(written["avro"]))
    for library, file in written.items():
        branch = branches[file.getvalue()[0] // 2]
        file.seek(0)
        print(f"{branches} {value}: {library} writes the {branch}", fastavro.schemaless_reader(file, parsed)["value"])
PYTHON
)
verdict "['long', 'double', 'string', 'bytes'] 9007199254740993: fastavro writes the long 9007199254740993
['long', 'double', 'string', 'bytes'] 9007199254740993: avro writes the double 9007199254740992.0
['null', 'long'] 9007199254740993: fastavro writes the long 9007199254740993
['null', 'long'] 9007199254740993: avro writes the long 9007199254740993
['double', 'long'] 9007199254740993: fastavro writes the double 9007199254740992.0
['double', 'long'] 9007199254740993: avro writes the long 9007199254740993
['boolean', 'long'] True: fastavro writes the boolean True
['boolean', 'long'] True: avro writes the long 1" "$seen"
