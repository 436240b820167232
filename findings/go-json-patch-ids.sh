#!/usr/bin/env bash
# surprise: jsondiff and jsonpatch for Go see no change between 2^53 and 2^53 + 1, and patch an id to its neighbour.
# versions: Go github.com/wI2L/jsondiff v0.7.1, github.com/mattbaird/jsonpatch v0.0.0-20240118010651-0ba75a80ca38,
#   gomodules.xyz/jsonpatch/v2 v2.5.0 for comparison, github.com/evanphx/json-patch/v5 v5.9.11 applies
# expected: a patch that makes the second document of the first one. Both take the documents as bytes, JSON bounds no integer, and
#   gomodules.xyz/jsonpatch, with the same function, does it.
# does: both read numbers as doubles. Two ids that differ in the last bit are no change, so that a state which is sent as patches
#   keeps the old one; and a new id is sent as another. jsondiff has an option for another decoder; the other has none.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/wI2L/jsondiff@v0.7.1 github.com/mattbaird/jsonpatch@v0.0.0-20240118010651-0ba75a80ca38 \
  gomodules.xyz/jsonpatch/v2@v2.5.0 github.com/evanphx/json-patch/v5@v5.9.11 <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	apply "github.com/evanphx/json-patch/v5"
	mattbaird "github.com/mattbaird/jsonpatch"
	"github.com/wI2L/jsondiff"
	gomodules "gomodules.xyz/jsonpatch/v2"
)

func patched(name, before string, made any, err error) {
	if err != nil {
		panic(err)
	}
	text, err := json.Marshal(made)
	if err != nil {
		panic(err)
	}
	patch, err := apply.DecodePatch(text)
	if err != nil {
		panic(err)
	}
	after, err := patch.Apply([]byte(before))
	if err != nil {
		panic(err)
	}
	fmt.Printf("  %s: %d changes, patched %s\n", name, len(patch), after)
}

func main() {
	for _, pair := range [][2]string{
		{`{"run":9007199254740992}`, `{"run":9007199254740993}`},
		{`{"run":7}`, `{"run":9007199254740993}`},
	} {
		fmt.Println(pair[0], "to", pair[1])
		wi2l, err := jsondiff.CompareJSON([]byte(pair[0]), []byte(pair[1]))
		patched("wI2L/jsondiff", pair[0], append(jsondiff.Patch{}, wi2l...), err)
		baird, err := mattbaird.CreatePatch([]byte(pair[0]), []byte(pair[1]))
		patched("mattbaird/jsonpatch", pair[0], baird, err)
		modules, err := gomodules.CreatePatch([]byte(pair[0]), []byte(pair[1]))
		patched("gomodules.xyz/jsonpatch", pair[0], modules, err)
	}
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "{\"run\":9007199254740992} to {\"run\":9007199254740993}
  wI2L/jsondiff: 0 changes, patched {\"run\":9007199254740992}
  mattbaird/jsonpatch: 0 changes, patched {\"run\":9007199254740992}
  gomodules.xyz/jsonpatch: 1 changes, patched {\"run\":9007199254740993}
{\"run\":7} to {\"run\":9007199254740993}
  wI2L/jsondiff: 1 changes, patched {\"run\":9007199254740992}
  mattbaird/jsonpatch: 1 changes, patched {\"run\":9007199254740992}
  gomodules.xyz/jsonpatch: 1 changes, patched {\"run\":9007199254740993}" "$seen"
