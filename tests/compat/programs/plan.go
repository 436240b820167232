// Reads a plan (tests/compat/plan.py); part of each of the Go programs.
package main

import (
	"encoding/base64"
	"os"
	"strconv"
	"strings"
)

type header struct{ name, value []byte }

type line struct {
	key, value []byte
	hasTime    bool
	timestamp  int64
	headers    []header
}

type chunk struct {
	lines     []line
	committed bool
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func content(field string) []byte {
	if field == "-" {
		return nil
	}
	found, err := base64.StdEncoding.DecodeString(field[1:])
	must(err)
	return found
}

func plan(path string) (found []line) {
	text, err := os.ReadFile(path)
	must(err)
	for _, row := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		fields := strings.Split(row, "\t")
		one := line{key: content(fields[0]), value: content(fields[1])}
		if fields[2] != "-" {
			one.hasTime = true
			one.timestamp, err = strconv.ParseInt(fields[2], 10, 64)
			must(err)
		}
		for _, pair := range strings.Split(fields[3], ",") {
			if name, value, ok := strings.Cut(pair, ":"); ok {
				one.headers = append(one.headers, header{content(name), content(value)})
			}
		}
		found = append(found, one)
	}
	return found
}

// Every fifth chunk is first written into a transaction that is aborted.
func chunks(lines []line, transactions bool) (found []chunk) {
	if !transactions {
		return []chunk{{lines, true}}
	}
	for number := 0; len(lines) > 0; number++ {
		size := min(50, len(lines))
		if number%5 == 4 {
			found = append(found, chunk{lines[:size], false})
		}
		found = append(found, chunk{lines[:size], true})
		lines = lines[size:]
	}
	return found
}
