#!/usr/bin/env bash
# surprise: Apache Beam for Python copies JSON lines and writes a started_at of 1767225600 as 1767225600000, and true as "True".
# versions: PyPI apache-beam 2.77.0 with its extra dataframe (pandas 2.3.3)
# expected: the records that were read, as ReadFromJson and WriteToJson without anything between them change nothing; a time in
#   seconds since 1970 is a number, and what a field counts is not in its name.
# does: both use pandas, which takes fields for times by their names: those that end with _at or _time, begin with timestamp, or
#   are called modified or date. Numbers in them from a year on become dates, which are written in milliseconds: seconds are a
#   thousand times as much, and so is a wait_time of 45 s in microseconds. A null in one record makes a 5.0 of 5 and a text of
#   true in the others. Beam YAML's ReadFromJson is the same one.

. "$(dirname "$0")/lib/finding.sh"
python_packages --no-compile "apache-beam[dataframe]==2.77.0" pandas==2.3.3
cat >"$WORK/steps.jsonl" <<'STEPS'
{"run":7,"started_at":1767225600,"wait_time":45000000,"ok":true,"tokens":5}
{"run":8,"started_at":1767225601,"wait_time":46000000,"ok":null,"tokens":null}
STEPS
cat >"$WORK/steps.py" <<'PYTHON'
import glob
import sys

import apache_beam

with apache_beam.Pipeline() as pipeline:
    steps = pipeline | apache_beam.io.ReadFromJson(sys.argv[1])
    steps | apache_beam.io.WriteToJson(sys.argv[2])
print(open(glob.glob(sys.argv[2] + "*")[0]).read().strip())
PYTHON
seen=$(cat "$WORK/steps.jsonl" && cd "$WORK" && timeout 120 "$WORK/venv/bin/python" steps.py "$WORK/steps.jsonl" "$WORK/copied" 2>/dev/null)
verdict "{\"run\":7,\"started_at\":1767225600,\"wait_time\":45000000,\"ok\":true,\"tokens\":5}
{\"run\":8,\"started_at\":1767225601,\"wait_time\":46000000,\"ok\":null,\"tokens\":null}
{\"run\":7,\"started_at\":1767225600000,\"wait_time\":45000000000,\"ok\":\"True\",\"tokens\":5.0}
{\"run\":8,\"started_at\":1767225601000,\"wait_time\":46000000000,\"ok\":null,\"tokens\":null}" "$seen"
