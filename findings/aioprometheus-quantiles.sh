#!/usr/bin/env bash
# surprise: aioprometheus's summary gives 51 as the 99th percentile of 1 to 100, and 27 as the median.
# versions: PyPI aioprometheus 23.12.0, quantile-python 1.1
# expected: about 99 and about 50. A summary has pairs of a quantile and its error, by default 0.05 of the rank for the median,
#   0.01 for the 90th percentile and 0.001 for the 99th.
# does: quantile-python, by which it estimates, gives values of ranks far below. Of 1,000 durations that come in order the 99th
#   percentile is 496, less than their average of 500.5, which sum and count give rightly; of 10 it is the sixth. An alert on the
#   latency of the slowest steps does not fire. A histogram of the same package counts the same values well. (Issue 10 of
#   aioprometheus has a 99th percentile below the 90th.)

. "$(dirname "$0")/lib/finding.sh"
python_packages aioprometheus==23.12.0 quantile-python==1.1
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import random

from aioprometheus import Histogram, Registry, Summary
from aioprometheus.formats.text import TextFormatter

for count in (10, 100, 1000):
    for order in ("in order", "mixed"):
        values = list(range(1, count + 1))
        if order == "mixed":
            random.Random(1).shuffle(values)
        registry = Registry()
        summary = Summary("steps", "any", registry=registry)
        histogram = Histogram("steps_histogram", "any", buckets=[count * 0.5, count * 0.9, count * 0.99], registry=registry)
        for value in values:
            summary.observe({}, value)
            histogram.observe({}, value)
        lines = TextFormatter().marshall(registry).decode().splitlines()
        print(f"1 to {count}, {order}:", *(line for line in lines if "quantile=" in line or line.startswith("steps_sum")))
        print("  buckets:", *(line.split("bucket")[1] for line in lines if "bucket" in line))
PYTHON
)
verdict "1 to 10, in order: steps{quantile=\"0.5\"} 3.0 steps{quantile=\"0.9\"} 6.0 steps{quantile=\"0.99\"} 6.0 steps_sum 55.0
  buckets: {le=\"5.0\"} 5.0 {le=\"9.0\"} 9.0 {le=\"9.9\"} 9.0 {le=\"+Inf\"} 10.0
1 to 10, mixed: steps{quantile=\"0.5\"} 3.0 steps{quantile=\"0.9\"} 6.0 steps{quantile=\"0.99\"} 6.0 steps_sum 55.0
  buckets: {le=\"5.0\"} 5.0 {le=\"9.0\"} 9.0 {le=\"9.9\"} 9.0 {le=\"+Inf\"} 10.0
1 to 100, in order: steps{quantile=\"0.5\"} 27.0 steps{quantile=\"0.9\"} 45.0 steps{quantile=\"0.99\"} 51.0 steps_sum 5050.0
  buckets: {le=\"50.0\"} 50.0 {le=\"90.0\"} 90.0 {le=\"99.0\"} 99.0 {le=\"+Inf\"} 100.0
1 to 100, mixed: steps{quantile=\"0.5\"} 27.0 steps{quantile=\"0.9\"} 45.0 steps{quantile=\"0.99\"} 51.0 steps_sum 5050.0
  buckets: {le=\"50.0\"} 50.0 {le=\"90.0\"} 90.0 {le=\"99.0\"} 99.0 {le=\"+Inf\"} 100.0
1 to 1000, in order: steps{quantile=\"0.5\"} 275.0 steps{quantile=\"0.9\"} 454.0 steps{quantile=\"0.99\"} 496.0 steps_sum 500500.0
  buckets: {le=\"500.0\"} 500.0 {le=\"900.0\"} 900.0 {le=\"990.0\"} 990.0 {le=\"+Inf\"} 1000.0
1 to 1000, mixed: steps{quantile=\"0.5\"} 300.0 steps{quantile=\"0.9\"} 595.0 steps{quantile=\"0.99\"} 655.0 steps_sum 500500.0
  buckets: {le=\"500.0\"} 500.0 {le=\"900.0\"} 900.0 {le=\"990.0\"} 990.0 {le=\"+Inf\"} 1000.0" "$seen"
