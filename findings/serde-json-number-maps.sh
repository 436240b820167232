#!/usr/bin/env bash
# surprise: A feature of serde_json that any crate may turn on makes maps of numbers in CBOR, lists in MessagePack, objects in flattened fields.
# versions: crates.io serde_json 1.0.154 without and with its feature arbitrary_precision, serde 1.0.229, rmp-serde 1.3.1, ciborium
#   0.2.2, serde_yaml_ng 0.10.0
# expected: the number 7 whatever is turned on. The feature is described to keep all digits of a number, Cargo turns it on for all crates of
#   a program if one asks for it, and features are to add and not to change.
# does: serde_json hands such a number on as a struct of one field with a private name. Only serde_json knows what that means: other
#   formats write it as they write structs, so that readers in another language find {"$serde_json::private::Number": "1.5"},
#   and an untagged enum behind flatten takes the branch for an object. Nothing fails, and the program's own code is the same.

. "$(dirname "$0")/lib/finding.sh"
rust_program serde@1.0.229\ --features\ derive serde_json@1.0.154 rmp-serde@1.3.1 ciborium@0.2.2 serde_yaml_ng@0.10.0 <<'RUST'
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize, Debug)]
#[serde(untagged)]
#[allow(dead_code)]
enum Any {
    Number(f64),
    Text(String),
    Object(BTreeMap<String, String>),
}

#[derive(Deserialize)]
struct Step {
    #[serde(flatten)]
    rest: BTreeMap<String, Any>,
}

fn main() {
    let step = r#"{"cost":1.5}"#;
    let value: serde_json::Value = serde_json::from_str(step).unwrap();
    println!("JSON {value}");
    println!("flattened {:?}", serde_json::from_str::<Step>(step).unwrap().rest);
    println!("MessagePack {}", rmp_serde::to_vec(&value).unwrap().escape_ascii());
    let mut bytes = Vec::new();
    ciborium::into_writer(&value, &mut bytes).unwrap();
    println!("CBOR {}", bytes.escape_ascii());
    println!("YAML {:?}", serde_yaml_ng::to_string(&value).unwrap());
}
RUST
seen=$(
  timeout 60 "$WORK/rust/target/debug/finding"
  cd "$WORK/rust"
  cargo add --quiet serde_json@=1.0.154 --features arbitrary_precision >/dev/null 2>&1
  cargo build --quiet >/dev/null 2>&1
  echo "with arbitrary_precision:"
  timeout 60 "$WORK/rust/target/debug/finding"
)
verdict "JSON {\"cost\":1.5}
flattened {\"cost\": Number(1.5)}
MessagePack \\x81\\xa4cost\\xcb?\\xf8\\x00\\x00\\x00\\x00\\x00\\x00
CBOR \\xa1dcost\\xf9>\\x00
YAML \"cost: 1.5\\n\"
with arbitrary_precision:
JSON {\"cost\":1.5}
flattened {\"cost\": Object({\"\$serde_json::private::Number\": \"1.5\"})}
MessagePack \\x81\\xa4cost\\x91\\xa31.5
CBOR \\xa1dcost\\xa1x\\x1c\$serde_json::private::Numberc1.5
YAML \"cost:\\n  \$serde_json::private::Number: '1.5'\\n\"" "$seen"
