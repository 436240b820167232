#!/usr/bin/env bash
# surprise: Of an LZ4 log to which a batch was appended, Rust's lz4_flex and npm's lz4-napi and lz4js read the first batch, without an error.
# versions: crates.io lz4_flex 0.14.2; npm lz4-napi 2.10.0, lz4js 0.2.0 (on node 20 or newer); PyPI lz4 4.4.5; Go
#   github.com/pierrec/lz4/v4 v4.1.33 for comparison
# expected: both batches, or an error about what is left over. The description of the LZ4 frame format names frames one behind the other as
#   a way to add data to a file without compressing it anew, and the lz4 command reads them all, in order.
# does: the end of the first frame is the end of the file to them. A log of which each hour, or each flush, was appended as a frame
#   has one hour, and no count says that there is more. Python's lz4.frame.open reads all, and lz4.frame.decompress of the same
#   package, which speaks of one frame, the first. What was written in one go is the same everywhere.

. "$(dirname "$0")/lib/finding.sh"
python_packages lz4==4.4.5
node_packages lz4-napi@2.10.0 lz4js@0.2.0
cat >"$WORK/node/read.mjs" <<'NODE'
import fs from "node:fs";
import napi from "lz4-napi";
import lz4js from "lz4js";

const file = fs.readFileSync(process.argv[2]);
const lines = (bytes) => Buffer.from(bytes).toString().trim().split("\n").length;
console.log(`lz4-napi: ${lines(await napi.decompressFrame(file))} lines`);
console.log(`lz4js: ${lines(lz4js.decompress(file))} lines`);
NODE
rust_program lz4_flex@0.14.2 <<'RUST'
use std::io::{BufRead, BufReader};

fn main() {
    let file = std::fs::File::open(std::env::args().nth(1).unwrap()).unwrap();
    let lines = BufReader::new(lz4_flex::frame::FrameDecoder::new(file)).lines();
    println!("lz4_flex: {} lines", lines.map(|line| line.unwrap()).count());
}
RUST
go_program github.com/pierrec/lz4/v4@v4.1.33 <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/pierrec/lz4/v4"
)

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(lz4.NewReader(file))
	count := 0
	for lines.Scan() {
		count++
	}
	if lines.Err() != nil {
		panic(lines.Err())
	}
	fmt.Printf("pierrec/lz4: %d lines\n", count)
}
GO
cat >"$WORK/python" <<'PYTHON'
import sys

import lz4.frame

path, mode = sys.argv[1:]
if mode == "write":
    lines = [b'{"run":7,"step":%d}\n' % step for step in range(1000)]
    with open(path, "wb") as log:
        for batch in (lines[:600], lines[600:]):
            log.write(lz4.frame.compress(b"".join(batch)))
else:
    with lz4.frame.open(path) as lines:
        print(f"lz4.frame.open: {sum(1 for _ in lines)} lines")
    with open(path, "rb") as log:
        print("lz4.frame.decompress:", len(lz4.frame.decompress(log.read()).splitlines()), "lines")
PYTHON
timeout 60 "$WORK/venv/bin/python" "$WORK/python" "$WORK/steps.lz4" write
seen=$(
  timeout 60 "$WORK/rust/target/debug/finding" "$WORK/steps.lz4"
  (cd "$WORK/node" && timeout 60 node read.mjs "$WORK/steps.lz4")
  timeout 60 "$WORK/venv/bin/python" "$WORK/python" "$WORK/steps.lz4" read
  timeout 60 "$WORK/go/program" "$WORK/steps.lz4"
)
verdict "lz4_flex: 600 lines
lz4-napi: 600 lines
lz4js: 600 lines
lz4.frame.open: 1000 lines
lz4.frame.decompress: 600 lines
pierrec/lz4: 1000 lines" "$seen"
