#!/usr/bin/env bash
# surprise: goavro cannot write the decimal 0.00 into a fixed, and writes -0.001 as -0.01.
# versions: Go github.com/linkedin/goavro/v2 v2.15.0; PyPI fastavro 1.13.1 for comparison
# expected: four bytes of 0, as fastavro writes them; and for a third digit, which a scale of 2 has no room for, an error as
#   fastavro raises one, or the nearest cent.
# does: a number that is 0, or is cut to 0, is one byte to it, whatever the size of the fixed, and the write fails: the first step
#   that cost nothing stops a producer that ran well before. Digits beyond the scale are cut towards minus infinity: 19.999 is
#   19.99, and a correction of a tenth of a cent takes a whole one away.

. "$(dirname "$0")/lib/finding.sh"
python_packages fastavro==1.13.1
go_program github.com/linkedin/goavro/v2@v2.15.0 <<'GO'
package main

import (
	"fmt"
	"math/big"

	"github.com/linkedin/goavro/v2"
)

func main() {
	codec, err := goavro.NewCodec(`{"type":"fixed","name":"price","size":4,"logicalType":"decimal","precision":9,"scale":2}`)
	if err != nil {
		panic(err)
	}
	for _, price := range []string{"19.99", "-0.05", "0.00", "19.999", "-0.001"} {
		given, _ := new(big.Rat).SetString(price)
		written, err := codec.BinaryFromNative(nil, given)
		if err != nil {
			fmt.Printf("goavro, %s: %v\n", price, err)
			continue
		}
		read, _, err := codec.NativeFromBinary(written)
		if err != nil {
			panic(err)
		}
		fmt.Printf("goavro, %s: %x, read as %s\n", price, written, read.(*big.Rat).FloatString(2))
	}
}
GO
seen=$(
  timeout 60 "$WORK/go/program"
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import decimal
import io

import fastavro

schema = {"type": "fixed", "name": "price", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2}
for price in ("19.99", "0.00", "19.999"):
    written = io.BytesIO()
    try:
        fastavro.schemaless_writer(written, schema, decimal.Decimal(price))
        print(f"fastavro, {price}:", written.getvalue().hex())
    except ValueError as error:
        print(f"fastavro, {price}:", error)
PYTHON
)
verdict "goavro, 19.99: 000007cf, read as 19.99
goavro, -0.05: fffffffb, read as -0.05
goavro, 0.00: cannot encode binary fixed \"price\": datum size ought to equal schema size: 1 != 4
goavro, 19.999: 000007cf, read as 19.99
goavro, -0.001: ffffffff, read as -0.01
fastavro, 19.99: 000007cf
fastavro, 0.00: 00000000
fastavro, 19.999: Scale provided in schema does not match the decimal" "$seen"
