#!/usr/bin/env bash
# surprise: xitongsys/parquet-go's JSON writer stores 1e3 as 1, the text "2026-01-01T00:00:00Z" as 2,026 ms after 1970, and "1,250" as 1.
# versions: Go github.com/xitongsys/parquet-go v1.6.2, parquet-go-source v0.0.0-20241021075129-b732d2ac9c9b; PyPI pyarrow 26.0.1 reads
# expected: 1000 for 1e3, which is an integer in JSON; and an error for a value that the column has no room for, as for true and for "x".
# does: a value is made a text again and scanned for a number at its beginning; what follows is dropped. A time in ISO form is its
#   year, a number with an exponent or a fraction what stands before, and a text that begins with a digit that digit. Any text but
#   true and 1 is false. Neither Write nor WriteStop reports an error, and the file is a whole one.

. "$(dirname "$0")/lib/finding.sh"
python_packages pyarrow==26.0.1
go_program github.com/xitongsys/parquet-go/writer@v1.6.2 \
  github.com/xitongsys/parquet-go-source/local@v0.0.0-20241021075129-b732d2ac9c9b <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/xitongsys/parquet-go-source/local"
	"github.com/xitongsys/parquet-go/writer"
)

const schema = `{"Tag":"name=step","Fields":[
{"Tag":"name=tokens, type=INT64, repetitiontype=OPTIONAL"},
{"Tag":"name=at, type=INT64, convertedtype=TIMESTAMP_MILLIS, repetitiontype=OPTIONAL"},
{"Tag":"name=cost, type=DOUBLE, repetitiontype=OPTIONAL"},
{"Tag":"name=ok, type=BOOLEAN, repetitiontype=OPTIONAL"}]}`

func write(path, line string) (err error) {
	file, err := local.NewLocalFileWriter(path)
	if err != nil {
		return err
	}
	defer file.Close()
	rows, err := writer.NewJSONWriter(schema, file, 1)
	if err != nil {
		return err
	}
	if err = rows.Write(line); err != nil {
		return err
	}
	return rows.WriteStop()
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for number := 0; lines.Scan(); number++ {
		path := fmt.Sprintf("%s/%02d", os.Args[1], number)
		if write(path, lines.Text()) != nil {
			os.Remove(path)
		}
	}
}
GO
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK" <<'PYTHON'
import pathlib
import subprocess
import sys

from pyarrow import parquet

lines = """{"tokens":9007199254740993}
{"tokens":1e3}
{"tokens":1.9}
{"tokens":"1,250"}
{"tokens":"7 of 9"}
{"tokens":true}
{"tokens":"x"}
{"at":1767225600000}
{"at":"2026-01-01T00:00:00Z"}
{"cost":"1.5 USD"}
{"ok":true}
{"ok":"yes"}""".splitlines()
folder = pathlib.Path(sys.argv[1], "steps")
folder.mkdir()
subprocess.run([f"{sys.argv[1]}/go/program", folder], input="\n".join(lines), text=True, check=True)
for number, line in enumerate(lines):
    path = folder / f"{number:02d}"
    row = {name: str(value) for name, value in parquet.read_table(path).to_pylist()[0].items() if value is not None} if path.exists() else {}
    print(f"{line}:", *row.values() or ["refused"])
PYTHON
)
verdict '{"tokens":9007199254740993}: 9007199254740993
{"tokens":1e3}: 1
{"tokens":1.9}: 1
{"tokens":"1,250"}: 1
{"tokens":"7 of 9"}: 7
{"tokens":true}: refused
{"tokens":"x"}: refused
{"at":1767225600000}: 2026-01-01 00:00:00
{"at":"2026-01-01T00:00:00Z"}: 1970-01-01 00:00:02.026000
{"cost":"1.5 USD"}: 1.5
{"ok":true}: True
{"ok":"yes"}: False' "$seen"
