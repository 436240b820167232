#!/usr/bin/env bash
# surprise: confluent-kafka's JSONSerializer refuses 1,363 of the 10,000 prices up to 100.00 as no multiples of 0.01.
# versions: PyPI confluent-kafka 2.16.1 with its extras json and schemaregistry, jsonschema 4.26.0; npm ajv 8.20.0 (on node 20 or newer);
#   Go github.com/santhosh-tekuri/jsonschema/v6 v6.0.3; Maven com.github.erosb:everit-json-schema:1.14.6
# expected: all of them are valid: JSON Schema asks whether the value divided by multipleOf is an integer, and 19.99 / 0.01 is 1999.
# does: Python's and Node's validators divide binary floating-point numbers, Go's and Java's decimals. A record that is valid in one
#   language cannot be written in another under the same schema. Amounts in cents, as integers, have one verdict.

. "$(dirname "$0")/lib/finding.sh"
python_packages "confluent-kafka[json,schemaregistry]==2.16.1" jsonschema==4.26.0
node_packages ajv@8.20.0
java_packages everit com.github.erosb:everit-json-schema:1.14.6
go_program github.com/santhosh-tekuri/jsonschema/v6@v6.0.3 <<'GO'
package main

import (
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	document, _ := jsonschema.UnmarshalJSON(strings.NewReader(`{"type": "number", "multipleOf": 0.01}`))
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("price.json", document); err != nil {
		panic(err)
	}
	schema := compiler.MustCompile("price.json")
	refused := 0
	for cents := 1; cents <= 10_000; cents++ {
		price, _ := jsonschema.UnmarshalJSON(strings.NewReader(fmt.Sprintf("%d.%02d", cents/100, cents%100)))
		if schema.Validate(price) != nil {
			refused++
		}
	}
	fmt.Println("go, santhosh-tekuri:", refused, "refused")
}
GO
cat >"$WORK/Prices.java" <<'JAVA'
import java.math.BigDecimal;
import org.everit.json.schema.ValidationException;
import org.everit.json.schema.loader.SchemaLoader;
import org.json.JSONObject;

class Prices {
    public static void main(String[] arguments) {
        var schema = SchemaLoader.load(new JSONObject("{\"properties\": {\"price\": {\"type\": \"number\", \"multipleOf\": 0.01}}}"));
        int refused = 0;
        for (int cents = 1; cents <= 10_000; cents++) {
            try {
                schema.validate(new JSONObject("{\"price\": " + BigDecimal.valueOf(cents, 2) + "}"));
            } catch (ValidationException error) {
                refused++;
            }
        }
        System.out.println("java, everit: " + refused + " refused");
    }
}
JAVA
cat >"$WORK/node/prices.js" <<'NODE'
const Ajv = require('ajv')
const valid = new Ajv().compile({type: 'number', multipleOf: 0.01})
const prices = Array.from({length: 10_000}, (_, at) => JSON.parse(((at + 1) / 100).toFixed(2)))
console.log('node, ajv:', prices.filter((price) => !valid(price)).length, 'refused')
NODE
seen=$(
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

schema = {"title": "order", "type": "object", "properties": {"price": {"type": "number", "multipleOf": 0.01}}}
registry = SchemaRegistryClient.new_client({"url": "mock://finding"})
serializer = JSONSerializer(json.dumps(schema), registry)
refused = []
for cents in range(1, 10_001):
    try:
        serializer({"price": cents / 100}, SerializationContext("orders", MessageField.VALUE))
    except SerializationError as error:
        refused.append(str(error))
print(f"python, confluent-kafka: {len(refused)} refused,", next(why for why in refused if why.startswith("19.99 ")))
PYTHON
  (cd "$WORK/node" && timeout 60 node prices.js)
  timeout 60 "$WORK/go/program"
  timeout 60 java -cp "$WORK/everit/*" "$WORK/Prices.java"
)
verdict "python, confluent-kafka: 1363 refused, 19.99 is not a multiple of 0.01
node, ajv: 1363 refused
go, santhosh-tekuri: 0 refused
java, everit: 0 refused" "$seen"
