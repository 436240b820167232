#!/usr/bin/env bash
# surprise: faust-streaming reads the milliseconds of JavaScript's times as microseconds, unless the package ciso8601 is there, too.
# versions: PyPI faust-streaming 0.15.3, without and with ciso8601 2.4.1
# expected: half a second for .5 and 123 ms for .123: digits behind the point of ISO 8601 are a fraction of the second, and Date's
#   toISOString always writes three of them. A record's field of type datetime is converted with coerce or isodates.
# does: its own parser takes the digits for a number of microseconds, so that a record read and sent on has another time: .500Z
#   becomes .000500Z, .9 of one event comes before .123 of another, and nine digits raise ValueError. Python's own times have
#   six and are right, so that it shows with other producers alone. A comma before the fraction, which ISO 8601 allows, loses the
#   fraction and the zone. With ciso8601, which faust's extra for speed
#   installs, the same program reads the times as they are.

. "$(dirname "$0")/lib/finding.sh"
cat >"$WORK/read.py" <<'PYTHON'
import datetime
import importlib.util
import json

import faust


class Step(faust.Record, serializer="json", coerce=True):
    at: datetime.datetime


print("with ciso8601:" if importlib.util.find_spec("ciso8601") else "without ciso8601:")
for time in ("10:00:00.123456Z", "10:00:00.123Z", "10:00:00.9Z", "10:00:00,5Z", "10:00:00.123456789Z"):
    try:
        step = Step.loads(f'{{"at": "2026-01-01T{time}"}}'.encode())
        print(f"  {time} is {step.at.time()} {step.at.tzinfo}, sent on as {json.loads(step.dumps())['at'][11:]}")
    except ValueError as error:
        print(f"  {time}: {error}")
PYTHON
seen=$(
  python_packages faust-streaming==0.15.3
  timeout 60 "$WORK/venv/bin/python" "$WORK/read.py"
  python_packages ciso8601==2.4.1
  timeout 60 "$WORK/venv/bin/python" "$WORK/read.py"
)
verdict "without ciso8601:
  10:00:00.123456Z is 10:00:00.123456 UTC, sent on as 10:00:00.123456Z
  10:00:00.123Z is 10:00:00.000123 UTC, sent on as 10:00:00.000123Z
  10:00:00.9Z is 10:00:00.000009 UTC, sent on as 10:00:00.000009Z
  10:00:00,5Z is 10:00:00 None, sent on as 10:00:00
  10:00:00.123456789Z: microsecond must be in 0..999999
with ciso8601:
  10:00:00.123456Z is 10:00:00.123456 UTC, sent on as 10:00:00.123456Z
  10:00:00.123Z is 10:00:00.123000 UTC, sent on as 10:00:00.123000Z
  10:00:00.9Z is 10:00:00.900000 UTC, sent on as 10:00:00.900000Z
  10:00:00,5Z is 10:00:00.500000 UTC, sent on as 10:00:00.500000Z
  10:00:00.123456789Z is 10:00:00.123456 UTC, sent on as 10:00:00.123456Z" "$seen"
