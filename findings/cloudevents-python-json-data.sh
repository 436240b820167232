#!/usr/bin/env bash
# surprise: Python's CloudEvents SDK writes JSON data that is a list or a truth value as Python: ['run', None, True], and True.
# versions: PyPI cloudevents 2.2.0
# expected: JSON in binary mode, too. The event says application/json, the JSON format allows any JSON value as data, and the
#   Kafka and HTTP bindings put the data into the message encoded as its content type says.
# does: its binary messages are made with str() for all but objects: None, True, quotes that JSON does not know, "inf". Texts
#   stand without quotes. The SDK's own reader gives what it cannot parse as a text: a list comes back as one string, false as
#   one that is true, "5" as the number 5. Structured, the same events are right. (Issue 291 of sdk-python tells it of objects
#   under another content type.)

. "$(dirname "$0")/lib/finding.sh"
python_packages cloudevents==2.2.0
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

EVENT = '{"specversion":"1.0","id":"1","source":"/runs","type":"step","datacontenttype":"application/json","data":%s}'
for data in ('{"ok":[null,true]}', '["run",null,true]', "false", '"5"', '"run"', "null"):
    event = JSONFormat().read(CloudEvent, EVENT % data)
    message = kafka.to_binary_event(event)
    assert http.to_binary_event(event).body == message.value
    binary = kafka.from_binary_event(message).get_data()
    structured = kafka.from_structured_event(kafka.to_structured_event(event)).get_data()
    print(f"{data}: {message.value.decode()} on Kafka, read as {binary!r}; structured, as {structured!r}")
PYTHON
)
verdict "{\"ok\":[null,true]}: {\"ok\": [null, true]} on Kafka, read as {'ok': [None, True]}; structured, as {'ok': [None, True]}
[\"run\",null,true]: ['run', None, True] on Kafka, read as \"['run', None, True]\"; structured, as ['run', None, True]
false: False on Kafka, read as 'False'; structured, as False
\"5\": 5 on Kafka, read as 5; structured, as '5'
\"run\": run on Kafka, read as 'run'; structured, as 'run'
null:  on Kafka, read as None; structured, as None" "$seen"
