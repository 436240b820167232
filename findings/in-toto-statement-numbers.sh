#!/usr/bin/env bash
# surprise: in-toto-attestation changes integers of a predicate that it reads and writes again.
# versions: PyPI in-toto-attestation 0.9.3, protobuf 7.36.2
# expected: what was read: a predicate is any JSON object, JSON numbers have no bound, and a count, an offset or a time in
#   nanoseconds is an integer. The statement's digest and signature are over its bytes.
# does: the predicate is a google.protobuf.Struct, whose numbers are doubles: an integer beyond 2^53 becomes its neighbour,
#   every integer comes out with a point, and validate() says nothing. To check a statement, keep the bytes it came in.

. "$(dirname "$0")/lib/finding.sh"
python_packages in-toto-attestation==0.9.3 protobuf==7.36.2
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement

told = json.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "orders", "digest": {"sha256": "00" * 32}}],
        "predicateType": "https://example.org/records/v1",
        "predicate": {"records": 3, "end_offset": 9007199254740993, "time_ns": 1790000000123456789},
    }
)
statement = Statement.copy_from_pb(json_format.Parse(told, Statement([], "", {}).pb))
statement.validate()
written = json.loads(json_format.MessageToJson(statement.pb), parse_float=str)["predicate"]
for name in ("records", "end_offset", "time_ns"):
    number = written[name]
    print(f"{name}: {number}" + ("" if "e" not in str(number) else f" = {int(float(number))}"))
PYTHON
)
verdict "records: 3.0
end_offset: 9007199254740992.0
time_ns: 1.7900000001234568e+18 = 1790000000123456768" "$seen"
