#!/usr/bin/env bash
# surprise: datamodel-code-generator's model of a Kafka record refuses a key of any bytes but UTF-8 ones, and the null of a tombstone.
# versions: PyPI datamodel-code-generator 0.89.0, pydantic 2.14.4; openapi-schema-validator 0.9.0 for comparison
# expected: a model that takes what the schema takes. By OpenAPI 3.0 a string with the format byte is base64, of bytes of any kind, and
#   one with nullable may be null, whether or not it is required.
# does: the format becomes pydantic's Base64Str, the text that the bytes are in UTF-8: a record whose key is a binary id, or whose value
#   is Avro or Protobuf, is an error. nullable is passed over where the field is required, unless --strict-nullable is given, whose
#   help speaks of default fields. Records with texts pass, so that the first tests do, too.

. "$(dirname "$0")/lib/finding.sh"
python_packages datamodel-code-generator==0.89.0 pydantic==2.14.4 openapi-schema-validator==0.9.0
cat >"$WORK/records.json" <<'JSON'
{
  "openapi": "3.0.3",
  "info": {"title": "records", "version": "1"},
  "paths": {},
  "components": {
    "schemas": {
      "Record": {
        "type": "object",
        "required": ["key", "value"],
        "properties": {
          "key": {"type": "string", "format": "byte"},
          "value": {"type": "string", "format": "byte", "nullable": true}
        }
      }
    }
  }
}
JSON
for options in "" --strict-nullable; do
  # shellcheck disable=SC2086 # no option is no argument
  timeout 60 "$WORK/venv/bin/datamodel-codegen" --input "$WORK/records.json" --input-file-type openapi --formatters builtin \
    --output-model-type pydantic_v2.BaseModel --output "$WORK/model${options//-/_}.py" $options
done
seen=$(cd "$WORK" && timeout 60 venv/bin/python - <<'PYTHON'
import base64
import hashlib
import json

import model
import model__strict_nullable as strict
import openapi_schema_validator
import pydantic

schema = json.load(open("records.json"))["components"]["schemas"]["Record"]
validator = openapi_schema_validator.OAS30Validator(schema)
text, binary = b"run 7", hashlib.sha256(b"run 7").digest()[:16]
for name, key, value in (("text", text, text), ("binary key", binary, text), ("binary value", text, binary), ("tombstone", text, None)):
    record = {"key": base64.b64encode(key).decode(), "value": value and base64.b64encode(value).decode()}
    verdicts = [f"by the schema {'valid' if validator.is_valid(record) else 'invalid'}"]
    for title, made in (("model", model), ("with --strict-nullable", strict)):
        try:
            made.Record.model_validate(record)
            verdicts.append(f"{title}: taken")
        except pydantic.ValidationError as error:
            verdicts.append(f"{title}: {error.errors()[0]['type']}")
    print(f"{name}:", ", ".join(verdicts))
PYTHON
)
verdict 'text: by the schema valid, model: taken, with --strict-nullable: taken
binary key: by the schema valid, model: value_error, with --strict-nullable: value_error
binary value: by the schema valid, model: value_error, with --strict-nullable: value_error
tombstone: by the schema valid, model: string_type, with --strict-nullable: taken' "$seen"
