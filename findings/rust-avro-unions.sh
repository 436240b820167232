#!/usr/bin/env bash
# surprise: Rust's apache-avro writes 0 as null into a union of null and long, 1.0 as the long 0 beside double, and other values unreadably.
# versions: crates.io apache-avro 0.22.0
# expected: the value in the branch of its type, or an error: append_value is documented to validate the value by the schema, and
#   does refuse a text, and a long that an int has no room for.
# does: the check looks for a branch that fits, but what is written is the value alone, without the number of its branch, which
#   is how a union's value begins. Writing reports success, and a reader takes the value's first byte for that number: it
#   reads another value, or an error, and what is behind it in the block is lost. Value::Union with the branch's number, as
#   in the second result of each line, is written right.

. "$(dirname "$0")/lib/finding.sh"
rust_program apache-avro@0.22.0 <<'RUST'
use apache_avro::{types::Value, Reader, Schema, Writer};

fn read_back(schema: &Schema, value: Value) -> Result<String, apache_avro::Error> {
    let mut writer = Writer::new(schema, Vec::new())?;
    writer.append_value(value)?;
    let data = writer.into_inner()?;
    let read = Reader::new(&data[..])?.next().unwrap();
    Ok(match read {
        Ok(Value::Union(_, value)) => format!("{value:?}"),
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("written, and read as an error ({error})"),
    })
}

fn main() {
    for (text, branch, value) in [
        (r#"["long", "double"]"#, 1, Value::Double(1.0)),
        (r#"["null", "long"]"#, 1, Value::Long(0)),
        (r#"["null", "long"]"#, 1, Value::Long(1250)),
        (r#"["null", "string"]"#, 1, Value::String("paid".into())),
        (r#"["null", "int"]"#, 1, Value::Long(4294967297)),
    ] {
        let schema = Schema::parse_str(text).unwrap();
        let show = |result: Result<String, apache_avro::Error>| result.unwrap_or_else(|_| "refused".to_string());
        let plain = show(read_back(&schema, value.clone()));
        println!("{text} {value:?}: {plain} | {}", show(read_back(&schema, Value::Union(branch, Box::new(value.clone())))));
    }
}
RUST
seen=$(timeout 60 "$WORK/rust/target/debug/finding" 2>/dev/null)
verdict '["long", "double"] Double(1.0): Long(0) | Double(1.0)
["null", "long"] Long(0): Null | Long(0)
["null", "long"] Long(1250): written, and read as an error (Union index 1250 out of bounds: 2) | Long(1250)
["null", "string"] String("paid"): refused | String("paid")
["null", "int"] Long(4294967297): refused | refused' "$seen"
