#!/usr/bin/env bash
# surprise: parse-prometheus-text-format keeps of a histogram with labels the last series alone, without labels, sum and count.
# versions: npm parse-prometheus-text-format 1.1.1 (on node 20 or newer); PyPI prometheus-client 0.26.0 writes and reads
# expected: each series with its labels, sum and count, as the package does with counters: a histogram by topic is one series for
#   each topic. Its description says that the output aims to be compatible with that of prom2json, which has them.
# does: the samples of all series fill one entry: buckets of the same bound replace each other, labels beside le are left out, and
#   sums and counts with labels, too. A check of an exporter's metrics takes the latency of one topic for that of all.

. "$(dirname "$0")/lib/finding.sh"
python_packages prometheus-client==0.26.0
node_packages parse-prometheus-text-format@1.1.1
cat >"$WORK/node/read.mjs" <<'NODE'
import fs from "fs";
import parse from "parse-prometheus-text-format";

const metrics = parse(fs.readFileSync(0, "utf8"));
for (const metric of metrics.filter(({ name }) => !name.endsWith("_created"))) {
  for (const series of metric.metrics) console.log(`node, ${metric.name}: ${JSON.stringify(series)}`);
}
NODE
"$WORK/venv/bin/python" - >"$WORK/metrics" <<'PYTHON'
import prometheus_client

counter = prometheus_client.Counter("records", "Records.", ["topic"], registry=None)
histogram = prometheus_client.Histogram("lag", "Lag.", ["topic"], buckets=[1], registry=None)
registry = prometheus_client.CollectorRegistry()
registry.register(counter)
registry.register(histogram)
for topic, lags in (("orders", [5, 6, 7]), ("runs", [0.5])):
    for lag in lags:
        counter.labels(topic).inc()
        histogram.labels(topic).observe(lag)
print(prometheus_client.generate_latest(registry).decode(), end="")
PYTHON
seen=$(
  "$WORK/venv/bin/python" - "$WORK/metrics" <<'PYTHON'
import pathlib
import sys

from prometheus_client.parser import text_string_to_metric_families

for family in text_string_to_metric_families(pathlib.Path(sys.argv[1]).read_text()):
    for sample in family.samples:
        if sample.name == "lag_bucket":
            print("python,", sample.name, sample.labels, sample.value)
PYTHON
  (cd "$WORK/node" && timeout 60 node read.mjs <"$WORK/metrics")
)
verdict "python, lag_bucket {'le': '1.0', 'topic': 'orders'} 0.0
python, lag_bucket {'le': '+Inf', 'topic': 'orders'} 3.0
python, lag_bucket {'le': '1.0', 'topic': 'runs'} 1.0
python, lag_bucket {'le': '+Inf', 'topic': 'runs'} 1.0
node, records_total: {\"value\":\"3.0\",\"labels\":{\"topic\":\"orders\"}}
node, records_total: {\"value\":\"1.0\",\"labels\":{\"topic\":\"runs\"}}
node, lag: {\"buckets\":{\"1.0\":\"1.0\",\"+Inf\":\"1.0\"}}" "$seen"
