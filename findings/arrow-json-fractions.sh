#!/usr/bin/env bash
# surprise: Rust's arrow-json reads 1.9 into a column of integers as 1, -0.9 into one without sign as 0, and refuses true and "1.9".
# versions: crates.io arrow-json 60.1.0, arrow-schema 60.1.0
# expected: an error, as for each other value that the given schema has no room for: true, "1.9" and 4294967297 in an Int32 are refused.
# does: a number that is no integer is read as a double and cut towards zero, also where it counts milliseconds: a share of 0.75 is
#   none, and a negative correction in a column without sign is 0. A cost that one producer writes in cents and another in dollars loses
#   its cents instead of being refused.

. "$(dirname "$0")/lib/finding.sh"
rust_program arrow-json@60.1.0 arrow-schema@60.1.0 <<'RUST'
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use std::sync::Arc;

fn read(kind: &DataType, text: &str) -> Result<String, ArrowError> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", kind.clone(), true)]));
    let line = format!("{{\"n\":{text}}}");
    let batch = arrow_json::ReaderBuilder::new(schema).build(line.as_bytes())?.next().unwrap()?;
    let mut written = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut written);
    writer.write(&batch)?;
    writer.finish()?;
    Ok(String::from_utf8(written).unwrap().trim().to_string())
}

fn main() {
    for kind in [DataType::Int32, DataType::Int64, DataType::UInt64, DataType::Timestamp(TimeUnit::Millisecond, None)] {
        for text in ["1.9", "-0.9", "9007199254740.993", "true", "\"1.9\"", "4294967297"] {
            println!("{kind} {text}: {}", read(&kind, text).unwrap_or_else(|_| "refused".to_string()));
        }
    }
}
RUST
seen=$(timeout 60 "$WORK/rust/target/debug/finding")
verdict 'Int32 1.9: {"n":1}
Int32 -0.9: {"n":0}
Int32 9007199254740.993: refused
Int32 true: refused
Int32 "1.9": refused
Int32 4294967297: refused
Int64 1.9: {"n":1}
Int64 -0.9: {"n":0}
Int64 9007199254740.993: {"n":9007199254740}
Int64 true: refused
Int64 "1.9": refused
Int64 4294967297: {"n":4294967297}
UInt64 1.9: {"n":1}
UInt64 -0.9: {"n":0}
UInt64 9007199254740.993: {"n":9007199254740}
UInt64 true: refused
UInt64 "1.9": refused
UInt64 4294967297: {"n":4294967297}
Timestamp(ms) 1.9: {"n":"1970-01-01T00:00:00.001"}
Timestamp(ms) -0.9: {"n":"1970-01-01T00:00:00"}
Timestamp(ms) 9007199254740.993: {"n":"2255-06-05T23:47:34.740"}
Timestamp(ms) true: refused
Timestamp(ms) "1.9": refused
Timestamp(ms) 4294967297: {"n":"1970-02-19T17:02:47.297"}' "$seen"
