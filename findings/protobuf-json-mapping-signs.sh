#!/usr/bin/env bash
# surprise: Rust's protobuf-json-mapping writes a duration of -0.5 s as "0.500000000s", and refuses 1.0 and 1e3 as integers.
# versions: crates.io protobuf-json-mapping 3.7.2, protobuf 3.7.2; PyPI protobuf 7.36.2 for comparison
# expected: "-0.500000000s", which it reads itself, as "-0.5s", without an error. Protobuf's JSON mapping takes numbers in exponent form and
#   with a fraction of 0 for integers, as long as they have no other one.
# does: the sign is that of the whole seconds, and -0 has none: each negative duration below a second is a positive one after a copy,
#   such as how far a step's clock went back, while -1.5 s is right. A program that writes 3.0 or 1e3 is refused, and 1e400 in a
#   Struct becomes the text "Infinity".

. "$(dirname "$0")/lib/finding.sh"
python_packages protobuf==7.36.2
rust_program protobuf-json-mapping@3.7.2 protobuf@3.7.2 <<'RUST'
use protobuf::well_known_types::{duration::Duration, struct_::Struct, wrappers::Int64Value};
use protobuf_json_mapping::{parse_from_str, print_to_string};

fn copy<M: protobuf::MessageFull>(text: &str) {
    let copied = parse_from_str::<M>(text).ok().and_then(|read| print_to_string(&read).ok());
    println!("Rust, {} {text}: {}", M::descriptor().name(), copied.unwrap_or("refused".to_string()));
}

fn main() {
    for text in ["\"0.5s\"", "\"-0.5s\"", "\"-1.5s\""] {
        copy::<Duration>(text);
    }
    for text in ["3", "3.0", "1e3", "3.5"] {
        copy::<Int64Value>(text);
    }
    copy::<Struct>("{\"n\":1e400}");
}
RUST
seen=$(
  timeout 60 "$WORK/rust/target/debug/finding"
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from google.protobuf import duration_pb2, json_format, struct_pb2, wrappers_pb2

for kind, *texts in (
    (duration_pb2.Duration, '"0.5s"', '"-0.5s"', '"-1.5s"'),
    (wrappers_pb2.Int64Value, "3", "3.0", "1e3", "3.5"),
    (struct_pb2.Struct, '{"n":1e400}'),
):
    for text in texts:
        try:
            copied = json_format.MessageToJson(json_format.Parse(text, kind()), indent=None)
        except (ValueError, json_format.ParseError):
            copied = "refused"
        print(f"Python, {kind.DESCRIPTOR.name} {text}: {copied}")
PYTHON
)
verdict 'Rust, Duration "0.5s": "0.500000000s"
Rust, Duration "-0.5s": "0.500000000s"
Rust, Duration "-1.5s": "-1.500000000s"
Rust, Int64Value 3: "3"
Rust, Int64Value 3.0: refused
Rust, Int64Value 1e3: refused
Rust, Int64Value 3.5: refused
Rust, Struct {"n":1e400}: {"n": "Infinity"}
Python, Duration "0.5s": "0.500s"
Python, Duration "-0.5s": "-0.500s"
Python, Duration "-1.5s": "-1.500s"
Python, Int64Value 3: "3"
Python, Int64Value 3.0: "3"
Python, Int64Value 1e3: "1000"
Python, Int64Value 3.5: refused
Python, Struct {"n":1e400}: refused' "$seen"
