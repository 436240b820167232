#!/usr/bin/env bash
# surprise: Rust's prometheus-parse reads tool="search,fetch" as "search", so that two series are one, and drops samples with a brace or a colon.
# versions: crates.io prometheus-parse 0.2.5; PyPI prometheus-client 0.26.0 writes, and reads for comparison
# expected: the labels that were written. Prometheus's text format lets a label's value be any text, with ", \ and line ends escaped, and a
#   metric's name have colons, which recording rules have.
# does: labels are cut at each comma and each equals sign, a sample line at its first closing brace, and what does not fit then is left out
#   without an error: a label loses its end or is gone, a sample with a brace in a label is gone, and so is one whose name
#   has a colon. Escapes stay as they are but for the last one, which is cut in its middle.

. "$(dirname "$0")/lib/finding.sh"
python_packages prometheus-client==0.26.0
rust_program prometheus-parse@0.2.5 <<'RUST'
use std::io::BufRead;

fn main() {
    let scrape = prometheus_parse::Scrape::parse(std::io::stdin().lock().lines()).unwrap();
    for sample in scrape.samples {
        if let prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) | prometheus_parse::Value::Untyped(value) = sample.value {
            println!("prometheus-parse: {} tool={} {}", sample.metric, sample.labels.get("tool").unwrap_or("(none)"), value);
        }
    }
}
RUST
cat >"$WORK/metrics.py" <<'PYTHON'
import sys

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

registry = CollectorRegistry()
running = Gauge("running_steps", "Steps that run.", ["tool"], registry=registry)
for count, tool in enumerate(["search", "search,fetch", "a=b", "f({})", 'say "hi"']):
    running.labels(tool).set(count + 1)
Gauge("job:running_steps:sum", "All of them.", registry=registry).set(15)
text = generate_latest(registry).decode()
if sys.argv[1:]:
    print(text, end="")
else:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            print(f"prometheus-client: {sample.name} tool={sample.labels.get('tool', '(none)')} {sample.value:g}")
PYTHON
seen=$(
  timeout 60 "$WORK/venv/bin/python" "$WORK/metrics.py"
  timeout 60 "$WORK/venv/bin/python" "$WORK/metrics.py" text | timeout 60 "$WORK/rust/target/debug/finding"
)
verdict 'prometheus-client: running_steps tool=search 1
prometheus-client: running_steps tool=search,fetch 2
prometheus-client: running_steps tool=a=b 3
prometheus-client: running_steps tool=f({}) 4
prometheus-client: running_steps tool=say "hi" 5
prometheus-client: job:running_steps:sum tool=(none) 15
prometheus-parse: running_steps tool=search 1
prometheus-parse: running_steps tool=search 2
prometheus-parse: running_steps tool=(none) 3
prometheus-parse: running_steps tool=say \"hi\ 5' "$seen"
