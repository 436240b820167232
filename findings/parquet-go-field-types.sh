#!/usr/bin/env bash
# surprise: parquet-go reads the decimal 12.34 into a field decimal(2:18) as 35234775.04, and 4294967295 into a uint64 as 2^64 - 1.
# versions: Go github.com/parquet-go/parquet-go v0.32.0; PyPI pyarrow 26.0.1 writes
# expected: 1234, the cents, and the same number in a wider type; or an error, since the README says that conversions add and
#   remove columns and change no types. pyarrow stores a decimal as big-endian bytes, as the format allows for each precision.
# does: types are converted after all, without an error: timestamps by their unit, but the bytes of a decimal are copied into the
#   integer in the wrong order, a uint32 is widened as if it had a sign (as a float64, too), half floats are taken bit by bit,
#   the time of day keeps its number under another unit, and an int64 loses its upper half in an int32. Ids of runs and prices
#   are then others, whereas the same file read without a struct type gives 12.34.

. "$(dirname "$0")/lib/finding.sh"
python_packages pyarrow==26.0.1
"$WORK/venv/bin/python" - "$WORK/file.parquet" <<'PYTHON'
import datetime
import decimal
import sys

import pyarrow
import pyarrow.parquet

ten = datetime.datetime(2026, 1, 1, 10)
columns = {
    "price": pyarrow.array([decimal.Decimal("12.34"), decimal.Decimal("-0.01")], pyarrow.decimal128(9, 2)),
    "count": pyarrow.array([2**32 - 1, 7], pyarrow.uint32()),
    "id": pyarrow.array([2**32 + 1, 7], pyarrow.int64()),
    "score": pyarrow.array([1.5, -2], pyarrow.float16()),
    "at": pyarrow.array([ten, ten], pyarrow.timestamp("ms", "UTC")),
    "daily": pyarrow.array([ten.time(), ten.time()], pyarrow.time32("ms")),
}
pyarrow.parquet.write_table(pyarrow.table(columns), sys.argv[1])
PYTHON
go_program github.com/parquet-go/parquet-go@v0.32.0 <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/parquet-go/parquet-go"
)

func show[Row any](name string) {
	rows, err := parquet.ReadFile[Row](os.Args[1])
	if err != nil {
		fmt.Println(name, err)
		return
	}
	fmt.Printf("%s: %v\n", name, rows)
}

func main() {
	show[struct{ V int64 `parquet:"price,decimal(2:18)"` }]("price, int64 of cents")
	show[struct{ V uint32 `parquet:"count"` }]("count, uint32")
	show[struct{ V uint64 `parquet:"count"` }]("count, uint64")
	show[struct{ V float64 `parquet:"count"` }]("count, float64")
	show[struct{ V int32 `parquet:"id"` }]("id, int32")
	show[struct{ V float32 `parquet:"score"` }]("score, float32")
	show[struct{ V int64 `parquet:"at,timestamp(microsecond)"` }]("at, microseconds")
	show[struct{ V int64 `parquet:"daily,time(microsecond)"` }]("daily, microseconds")
	show[struct{ V time.Duration `parquet:"daily,time"` }]("daily, time.Duration")
	rows, err := parquet.ReadFile[any](os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("price, without a type:", rows[0].(map[string]any)["price"])
}
GO
seen=$(timeout 60 "$WORK/go/program" "$WORK/file.parquet")
verdict "price, int64 of cents: [{3523477504} {4294967295}]
count, uint32: [{4294967295} {7}]
count, uint64: [{18446744073709551615} {7}]
count, float64: [{-1} {7}]
id, int32: [{1} {7}]
score, float32: [{2.2241e-41} {6.8877e-41}]
at, microseconds: [{1767261600000000} {1767261600000000}]
daily, microseconds: [{36000000} {36000000}]
daily, time.Duration: [{36ms} {36ms}]
price, without a type: 12.34" "$seen"
