#!/usr/bin/env bash
# surprise: Benthos tells ids 2^53 and 2^53 + 1 apart with ==, while match, unique, contains and sort take them for one.
# versions: Go github.com/redpanda-data/benthos/v4 v4.60.0 (the core of Redpanda Connect)
# expected: one answer to whether two ids are equal. Messages keep each number as it was written, arithmetic on integers is exact,
#   and == has been since connect issue 2500. Ids of 64 bits, such as hashes and those of Snowflake, are mostly above 2^53.
# does: everything else compares doubles, of which both ids are the same one: match takes the branch of the other id, unique and
#   contains drop a run that is none of those seen, sort leaves a list as it came, max() gives the smaller of two, and number()
#   and parse_json() return the neighbour. No error and no log line says so.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/redpanda-data/benthos/v4/public/service@v4.60.0 github.com/redpanda-data/benthos/v4/public/components/pure@v4.60.0 <<'GO'
package main

import (
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

const step = `{"run":9007199254740993,"other":9007199254740992,"text":"9007199254740993"}`

func main() {
	for _, mapping := range []string{
		`this.run == this.other`,
		`this.run + 1`,
		`match this.run { 9007199254740992 => "the other", _ => "none" }`,
		`[this.run, this.other].unique()`,
		`[this.other].contains(this.run)`,
		`[this.run, this.other].sort()`,
		`[this.run, this.other].max()`,
		`this.text.number()`,
		`this.text.parse_json()`,
	} {
		parsed, err := bloblang.Parse("root = " + mapping)
		if err != nil {
			panic(err)
		}
		mapped, err := service.NewMessage([]byte(step)).BloblangQuery(parsed)
		if err != nil {
			panic(err)
		}
		value, err := mapped.AsBytes()
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: %s\n", mapping, value)
	}
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "this.run == this.other: false
this.run + 1: 9007199254740994
match this.run { 9007199254740992 => \"the other\", _ => \"none\" }: the other
[this.run, this.other].unique(): [9007199254740993]
[this.other].contains(this.run): true
[this.run, this.other].sort(): [9007199254740993,9007199254740992]
[this.run, this.other].max(): 9007199254740992
this.text.number(): 9007199254740992
this.text.parse_json(): 9007199254740992" "$seen"
