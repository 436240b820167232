#!/usr/bin/env bash
# surprise: hamba/avro writes 4294967297 as the int 1, an evening of 1969 as the day after, and a local midnight as two hours before.
# versions: Go github.com/hamba/avro/v2 v2.31.0
# expected: an error for a number that an Avro int has no room for, as for the same number as an int64; the date that the time states;
#   and for local-timestamp, which by the specification is of whatever zone is local, the wall clock that it states.
# does: Go's int, which has 64 bits, is cut to 32 and comes back as another number. A date is the seconds since 1970 divided by a day,
#   cut towards zero: each time before 1970 but midnight is a day late, and the date of a midnight at +02:00 is the day before.
#   A local-timestamp is converted to UTC first, so that it is a timestamp like any other, off by the zone.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/hamba/avro/v2@v2.31.0 <<'GO'
package main

import (
	"fmt"
	"time"

	"github.com/hamba/avro/v2"
)

func show(text string, value any) {
	schema := avro.MustParse(text)
	data, err := avro.Marshal(schema, value)
	var read any
	if err == nil {
		err = avro.Unmarshal(schema, data, &read)
	}
	if err != nil {
		read = err
	}
	fmt.Printf("%T %v: %v\n", value, value, read)
}

func main() {
	show(`"int"`, int64(4294967297))
	show(`"int"`, int(4294967297))
	show(`{"type":"record","name":"Step","fields":[{"name":"tokens","type":"int"}]}`, map[string]any{"tokens": 4294967297})
	day, local := `{"type":"int","logicalType":"date"}`, `{"type":"long","logicalType":"local-timestamp-millis"}`
	show(day, time.Date(1970, 1, 1, 23, 0, 0, 0, time.UTC))
	show(day, time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC))
	show(day, time.Date(1969, 12, 30, 23, 0, 0, 0, time.UTC))
	east := time.FixedZone("EAST", 2*60*60)
	show(day, time.Date(2026, 1, 1, 0, 0, 0, 0, east))
	show(local, time.Date(2026, 1, 1, 0, 0, 0, 0, east))
}
GO
seen=$(TZ=UTC timeout 60 "$WORK/go/program")
verdict 'int64 4294967297: avro: int64 is unsupported for Avro int
int 4294967297: 1
map[string]interface {} map[tokens:4294967297]: map[tokens:1]
time.Time 1970-01-01 23:00:00 +0000 UTC: 1970-01-01 00:00:00 +0000 UTC
time.Time 1969-12-31 00:00:00 +0000 UTC: 1969-12-31 00:00:00 +0000 UTC
time.Time 1969-12-30 23:00:00 +0000 UTC: 1969-12-31 00:00:00 +0000 UTC
time.Time 2026-01-01 00:00:00 +0200 EAST: 2025-12-31 00:00:00 +0000 UTC
time.Time 2026-01-01 00:00:00 +0200 EAST: 2025-12-31 22:00:00 +0000 UTC' "$seen"
