#!/usr/bin/env bash
# surprise: Avro for Java calls another scale of a decimal compatible and reads 12.34 as 1.234; its Python readers keep 12.34.
# versions: Maven org.apache.avro:avro:1.12.2; PyPI fastavro 1.13.1, avro 1.12.2
# expected: an error, or the value adapted: the writer's schema has scale 2 and milliseconds, the reader's scale 3 and
#   microseconds, both are known when a record is read, and by the specification decimals match only if their scales do.
# does: Java's SchemaCompatibility says COMPATIBLE, as a registry that checks by it will, and its readers take the number by
#   the reader's scale and unit: a tenth of the price, in January 1970. Python's fastavro and avro take the writer's. And as the
#   fingerprint leaves logical types out, a store of schemas by fingerprint (single-object encoding) cannot tell the two apart.

. "$(dirname "$0")/lib/finding.sh"
java_packages avro org.apache.avro:avro:1.12.2 org.slf4j:slf4j-nop:2.0.17
python_packages fastavro==1.13.1 avro==1.12.2
cat >"$WORK/writer.avsc" <<'JSON'
{"type": "record", "name": "Usage", "fields": [
  {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
JSON
sed 's/"scale": 2/"scale": 3/; s/-millis/-micros/' "$WORK/writer.avsc" >"$WORK/reader.avsc"
cat >"$WORK/Read.java" <<'JAVA'
import java.io.File;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import org.apache.avro.Conversions;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaNormalization;
import org.apache.avro.data.TimeConversions;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.BinaryMessageEncoder;

public class Read {
  public static void main(String[] folder) throws Exception {
    Schema writer = new Schema.Parser().parse(new File(folder[0], "writer.avsc"));
    Schema reader = new Schema.Parser().parse(new File(folder[0], "reader.avsc"));
    GenericData types = new GenericData();
    types.addLogicalTypeConversion(new Conversions.DecimalConversion());
    types.addLogicalTypeConversion(new TimeConversions.TimestampMillisConversion());
    types.addLogicalTypeConversion(new TimeConversions.TimestampMicrosConversion());
    System.out.println("java: " + SchemaCompatibility.checkReaderWriterCompatibility(reader, writer).getType());
    System.out.println("java, fingerprints equal: "
        + (SchemaNormalization.parsingFingerprint64(writer) == SchemaNormalization.parsingFingerprint64(reader)));
    GenericRecord record = new GenericData.Record(writer);
    record.put("cost", new BigDecimal("12.34"));
    record.put("at", Instant.parse("2026-11-30T05:00:00Z"));
    byte[] message = new BinaryMessageEncoder<GenericRecord>(types, writer).encode(record).array();
    Files.write(Path.of(folder[0], "message"), message);
    for (Schema schema : new Schema[] {writer, reader}) {
      BinaryMessageDecoder<GenericRecord> decoder = new BinaryMessageDecoder<>(types, schema);
      decoder.addSchema(writer);
      GenericRecord read = decoder.decode(message);
      System.out.println("java, " + (schema == writer ? "writer's" : "reader's") + ": " + read.get("cost") + " " + read.get("at"));
    }
  }
}
JAVA
seen=$(
  timeout 60 java -cp "$WORK/avro/*" "$WORK/Read.java" "$WORK"
  timeout 60 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import io
import json
import pathlib
import sys

import avro.io
import avro.schema
import fastavro

folder = pathlib.Path(sys.argv[1])
payload = (folder / "message").read_bytes()[10:]  # behind the marker and the fingerprint of single-object encoding
schemas = [json.loads((folder / name).read_text()) for name in ("writer.avsc", "reader.avsc")]
canonical = [fastavro.schema.to_parsing_canonical_form(schema) for schema in schemas]
prints = {fastavro.schema.fingerprint(form, "CRC-64-AVRO") for form in canonical}
print("fastavro, fingerprints equal:", len(prints) == 1)
read = fastavro.schemaless_reader(io.BytesIO(payload), *schemas)
print("fastavro, reader's:", read["cost"], read["at"].isoformat())
parsed = [avro.schema.parse(json.dumps(schema)) for schema in schemas]
read = avro.io.DatumReader(*parsed).read(avro.io.BinaryDecoder(io.BytesIO(payload)))
print("avro, reader's:", read["cost"], read["at"].isoformat())
PYTHON
)
verdict "java: COMPATIBLE
java, fingerprints equal: true
java, writer's: 12.34 2026-11-30T05:00:00Z
java, reader's: 1.234 1970-01-21T18:53:34.800Z
fastavro, fingerprints equal: True
fastavro, reader's: 12.34 2026-11-30T05:00:00+00:00
avro, reader's: 12.34 2026-11-30T05:00:00+00:00" "$seen"
