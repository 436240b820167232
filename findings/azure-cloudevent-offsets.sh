#!/usr/bin/env bash
# surprise: azure-core dates a CloudEvent of midnight at +02:00 at midnight UTC, and reads -05:30 as half an hour.
# versions: PyPI azure-core 1.41.0 (Python's own datetime for comparison)
# expected: the moment that the event states. CloudEvents gives time as an RFC 3339 timestamp, which may have any offset, and
#   CloudEvent.time is documented as a datetime. Senders with a local clock write offsets: Python's isoformat(), Java's
#   OffsetDateTime.
# does: of the offset's hours it reads the first digit alone: +02:00 becomes +00:00, +05:30 half an hour, +10:00 one hour. The
#   datetime has a zone and looks right, and nothing is raised; order, windows and latencies are off by hours. Times in UTC, with
#   Z, come out well, so that it shows with other senders alone.

. "$(dirname "$0")/lib/finding.sh"
python_packages azure-core==1.41.0
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from datetime import UTC, datetime

from azure.core.messaging import CloudEvent

for time in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00.5-05:30", "2026-01-01T00:00:00+10:00"):
    event = {"specversion": "1.0", "id": "1", "source": "/runs", "type": "step", "time": time}
    read, stated = CloudEvent.from_dict(event).time, datetime.fromisoformat(time)
    print(f"{time}: azure-core {read}; in UTC {read.astimezone(UTC)} instead of {stated.astimezone(UTC)}")
PYTHON
)
verdict "2026-01-01T00:00:00Z: azure-core 2026-01-01 00:00:00+00:00; in UTC 2026-01-01 00:00:00+00:00 instead of 2026-01-01 00:00:00+00:00
2026-01-01T00:00:00+02:00: azure-core 2026-01-01 00:00:00+00:00; in UTC 2026-01-01 00:00:00+00:00 instead of 2025-12-31 22:00:00+00:00
2026-01-01T00:00:00.5-05:30: azure-core 2026-01-01 00:00:00.500000-00:30; in UTC 2026-01-01 00:30:00.500000+00:00 instead of 2026-01-01 05:30:00.500000+00:00
2026-01-01T00:00:00+10:00: azure-core 2026-01-01 00:00:00+01:00; in UTC 2025-12-31 23:00:00+00:00 instead of 2025-12-31 14:00:00+00:00" "$seen"
