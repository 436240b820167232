#!/usr/bin/env bash
# surprise: Python's CloudEvents SDK takes the whole envelope for the data if a structured message has ce_ headers, too.
# versions: PyPI cloudevents 2.2.0
# expected: the event in the value. The Kafka binding of CloudEvents 1.0 (3.3.3) allows a structured message to carry the
#   headers of binary mode beside it, for whoever routes by them, and tells the modes apart by content-type alone.
# does: any header that begins with ce_ makes it binary mode: the data type is that of the envelope, the data is the
#   envelope with the data inside. Nothing is raised or logged.

. "$(dirname "$0")/lib/finding.sh"
python_packages cloudevents==2.2.0
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat

attributes = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "placed"}
value = json.dumps({**attributes, "datacontenttype": "application/json", "data": {"total": 7}}).encode()
content_type = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
for name, more in (
    ("content-type alone", {}),
    ("with ce_ headers", {f"ce_{name}": told.encode() for name, told in attributes.items()}),
):
    event = from_kafka(KafkaMessage(headers={**content_type, **more}, key=None, value=value), JSONFormat())
    print(f"{name}: {event.get_datacontenttype()} {sorted(event.get_data())}")
PYTHON
)
verdict "content-type alone: application/json ['total']
with ce_ headers: application/cloudevents+json; charset=UTF-8 ['data', 'datacontenttype', 'id', 'source', 'specversion', 'type']" "$seen"
