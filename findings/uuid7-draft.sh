#!/usr/bin/env bash
# surprise: Ids of the PyPI package uuid7, made in 2026, are of the year 2202 to readers of UUID version 7.
# versions: PyPI uuid7 0.1.0, uuid-utils 1.2.0, uuid6 2025.0.1; Go github.com/google/uuid v1.6.0
# expected: the time at which the id was made, and ids of several programs in the order of their times: the version is in the id
#   so that readers know its layout, and RFC 9562 gives version 7 one layout, 48 bits of milliseconds first.
# does: the package follows a draft of 2021 (its description says which), with 36 bits of seconds and 24 of their fraction, under the
#   same version. Any other library takes the first 48 bits for milliseconds, and all its ids stand behind those of the others.

. "$(dirname "$0")/lib/finding.sh"
python_packages uuid7==0.1.0 uuid-utils==1.2.0 uuid6==2025.0.1
go_program github.com/google/uuid@v1.6.0 <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
)

func main() {
	id := uuid.MustParse(os.Args[1])
	seconds, _ := id.Time().UnixTime()
	fmt.Printf("google/uuid: version %d of %s\n", id.Version(), time.Unix(seconds, 0).UTC().Format("2006-01-02"))
}
GO
made=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import datetime
import uuid

import uuid6
import uuid_utils
from uuid_extensions import uuid7, uuid_to_datetime

id = uuid7(1_790_000_000_123_456_789)  # 21 September 2026
print(id)
print(f"uuid7: version {id.version} of {uuid_to_datetime(id):%Y-%m-%d}")
told = datetime.datetime.fromtimestamp(uuid_utils.UUID(str(id)).timestamp / 1000, datetime.UTC)
print(f"uuid-utils: version {uuid_utils.UUID(str(id)).version} of {told:%Y-%m-%d}")
before, after = uuid7(), uuid.UUID(int=uuid6.uuid7().int)
print("made first, sorted first:", before < after)
PYTHON
)
verdict "uuid7: version 7 of 2026-09-21
uuid-utils: version 7 of 2202-05-04
made first, sorted first: False
google/uuid: version 7 of 2202-05-04" "$(tail -n +2 <<<"$made"; "$WORK/go/program" "$(head -n 1 <<<"$made")")"
