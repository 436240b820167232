#!/usr/bin/env bash
# surprise: OpenTelemetry's Prometheus exporter for Python puts a topic under the operation's label if two meters share a metric's name.
# versions: PyPI opentelemetry-exporter-prometheus 0.66b2, opentelemetry-sdk 1.45.2, prometheus-client 0.26.0; npm
#   @opentelemetry/exporter-prometheus 0.223.0, @opentelemetry/sdk-metrics 2.12.1 (on node 20 or newer) for comparison
# expected: each label's value under the label's name. Meters are there so that two libraries can have a metric of one name, as
#   they do when both follow the conventions for messaging; attributes may differ, as those of one metric may.
# does: the values of the second meter's attributes, in the order of their names, are put under the names that the first one has:
#   the meter's own name becomes the topic. Sums by topic, by operation and by scope are wrong. Of attributes run.id and run_id
#   the exporter keeps the last, without the concatenation that the specification asks for (issue 3928 of opentelemetry-python),
#   so that two runs have one series, twice.

. "$(dirname "$0")/lib/finding.sh"
python_packages opentelemetry-exporter-prometheus==0.66b2 opentelemetry-sdk==1.45.2 prometheus-client==0.26.0
node_packages @opentelemetry/exporter-prometheus@0.223.0 @opentelemetry/sdk-metrics@2.12.1
cat >"$WORK/node/count.mjs" <<'NODE'
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";

const exporter = new PrometheusExporter({ preventServerStart: true });
const meters = new MeterProvider({ readers: [exporter] });
const count = (meter, attributes) => meters.getMeter(meter).createCounter("messaging.client.consumed.messages").add(1, attributes);
count("kafka", { "messaging.operation": "poll", "messaging.topic": "steps" });
count("tasks", { "messaging.topic": "runs" });
const { resourceMetrics } = await exporter.collect();
const lines = new PrometheusSerializer().serialize(resourceMetrics).split("\n");
for (const line of lines.filter((each) => each.startsWith("messaging"))) console.log("JavaScript:", line);
NODE
seen=$(
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

meters = MeterProvider([PrometheusMetricReader(disable_target_info=True)])


def count(meter, name, attributes):
    meters.get_meter(meter).create_counter(name).add(1, attributes)


count("kafka", "messaging.client.consumed.messages", {"messaging.operation": "poll", "messaging.topic": "steps"})
count("tasks", "messaging.client.consumed.messages", {"messaging.topic": "runs"})
count("runs", "steps", {"run.id": "7", "run_id": "same"})
count("runs", "steps", {"run.id": "8", "run_id": "same"})
for line in generate_latest(REGISTRY).decode().splitlines():
    if line.startswith(("messaging", "steps")):
        print("Python:", line)
PYTHON
  (cd "$WORK/node" && timeout 60 node count.mjs)
)
verdict "Python: messaging_client_consumed_messages_total{messaging_operation=\"poll\",messaging_topic=\"steps\",otel_scope_name=\"kafka\",otel_scope_schema_url=\"\",otel_scope_version=\"\"} 1.0
Python: messaging_client_consumed_messages_total{messaging_operation=\"runs\",messaging_topic=\"tasks\",otel_scope_name=\"\",otel_scope_schema_url=\"\"} 1.0
Python: steps_total{otel_scope_name=\"runs\",otel_scope_schema_url=\"\",otel_scope_version=\"\",run_id=\"same\"} 1.0
Python: steps_total{otel_scope_name=\"runs\",otel_scope_schema_url=\"\",otel_scope_version=\"\",run_id=\"same\"} 1.0
JavaScript: messaging_client_consumed_messages_total{messaging_operation=\"poll\",messaging_topic=\"steps\",otel_scope_name=\"kafka\"} 1
JavaScript: messaging_client_consumed_messages_total{messaging_topic=\"runs\",otel_scope_name=\"tasks\"} 1" "$seen"
