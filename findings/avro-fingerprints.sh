#!/usr/bin/env bash
# surprise: A schema with a time in it has three fingerprints in five Avro libraries, so that single objects find no schema.
# versions: Maven org.apache.avro:avro:1.12.2; PyPI fastavro 1.13.1, avro 1.12.2; Go github.com/hamba/avro/v2 v2.31.0,
#   github.com/twmb/avro v1.9.1
# expected: one fingerprint. By the specification the canonical form defines when two schemas are the same for a reader. It keeps
#   type, name, fields, symbols, items, values and size alone, and turns {"type": "long"} into "long". Its CRC-64-AVRO stands
#   in front of each record in the single-object encoding, by which a reader on a topic looks the schema up.
# does: Go's hamba/avro keeps logicalType, precision and scale. Python's avro keeps {"type": "long"} as an object where a logical
#   type stood, and writes a fixed anew at each place that names it. Java, fastavro and twmb/avro agree; without such types all
#   five do, so that simple schemas do not show it. (Issue 61 of avro-rs asks whether the order of the rules means Python's form;
#   issue 174 of goavro tells hamba's of another library.)

. "$(dirname "$0")/lib/finding.sh"
python_packages fastavro==1.13.1 avro==1.12.2
java_packages avro org.apache.avro:avro:1.12.2 org.slf4j:slf4j-nop:2.0.17
cat >"$WORK/schemas.jsonl" <<'JSON'
{"type": "record", "name": "Run", "fields": [{"name": "id", "type": {"type": "string"}}]}
{"type": "record", "name": "Run", "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
{"type": "record", "name": "Run", "fields": [{"name": "at", "type": "long"}]}
{"type": "record", "name": "Run", "fields": [{"name": "a", "type": {"type": "fixed", "name": "Hash", "size": 2}}, {"name": "b", "type": "Hash"}]}
JSON
cat >"$WORK/Read.java" <<'JAVA'
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.avro.Schema;
import org.apache.avro.SchemaNormalization;

public class Read {
  public static void main(String[] file) throws Exception {
    int number = 0;
    for (String line : Files.readAllLines(Path.of(file[0]))) {
      long fingerprint = SchemaNormalization.parsingFingerprint64(new Schema.Parser().parse(line));
      System.out.printf("%d %016x java%n", ++number, fingerprint);
    }
  }
}
JAVA
go_program github.com/hamba/avro/v2@v2.31.0 github.com/twmb/avro@v1.9.1 <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"

	hamba "github.com/hamba/avro/v2"
	twmb "github.com/twmb/avro"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for number := 1; lines.Scan(); number++ {
		hamba.DefaultSchemaCache = &hamba.SchemaCache{}
		fingerprint, err := hamba.MustParse(lines.Text()).FingerprintUsing(hamba.CRC64Avro)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %x hamba/avro\n", number, fingerprint)
		schema, err := twmb.Parse(lines.Text())
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %x twmb/avro\n", number, schema.Fingerprint(twmb.NewRabin()))
	}
}
GO
seen=$(
  {
    timeout 60 java -cp "$WORK/avro/*" "$WORK/Read.java" "$WORK/schemas.jsonl"
    timeout 60 "$WORK/go/program" <"$WORK/schemas.jsonl"
    timeout 60 "$WORK/venv/bin/python" - "$WORK/schemas.jsonl" <<'PYTHON'
import json
import pathlib
import sys

import avro.schema
import fastavro.schema

for number, line in enumerate(pathlib.Path(sys.argv[1]).read_text().splitlines(), 1):
    form = fastavro.schema.to_parsing_canonical_form(json.loads(line))
    little_endian = bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO"))
    print(number, little_endian[::-1].hex(), "fastavro")
    print(number, avro.schema.parse(line).fingerprint()[::-1].hex(), "avro")
PYTHON
  } | LC_ALL=C sort | awk '{key = $1 " " $2; if (key in names) names[key] = names[key] ", " $3; else {order[++n] = key; names[key] = $3}}
    END {for (i = 1; i <= n; i++) print order[i] ": " names[order[i]]}'
)
verdict "1 cc4d408158508714: avro, fastavro, hamba/avro, java, twmb/avro
2 260d2c25ec8f571a: hamba/avro
2 5d875dfc21e3ab4a: fastavro, java, twmb/avro
2 99c0d5b27df2ae06: avro
3 5d875dfc21e3ab4a: avro, fastavro, hamba/avro, java, twmb/avro
4 219cd6ac7cf2ed2f: avro
4 4829f6557da05260: fastavro, hamba/avro, java, twmb/avro" "$seen"
