"""Writes the lines of a plan (tests/compat/plan.py) with kcat: one call for records of the same headers in a row.

kcat takes headers as options, of all records of a call. It cannot write a time of the caller's.

arguments: bootstrap topic codec plain|transactions plan
"""

from __future__ import annotations

import base64
import itertools
import subprocess
import sys
import uuid

KEY_END = b"\x1e<key\x1e"
RECORD_END = b"\x1e<record\x1e"
CHUNK = 50


def content(field: str) -> bytes | None:
    return None if field == "-" else base64.b64decode(field[1:])


def parsed(line: str) -> tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]:
    key, value, timestamp, headers = line.rstrip("\n").split("\t")
    if timestamp != "-":
        raise SystemExit("error: kcat writes the present time")
    pairs = [pair.split(":") for pair in headers.split(",") if pair]
    return content(key), content(value), [(content(name) or b"", content(text)) for name, text in pairs]


def main() -> None:
    bootstrap, topic, codec, mode, plan = sys.argv[1:]
    with open(plan) as file:
        lines = [parsed(line) for line in file]
    options = ["-X", "partitioner=murmur2_random", "-X", "enable.idempotence=true", "-z", codec]
    options += ["-X", "message.max.bytes=8388608"]
    for (_, headers), group in itertools.groupby(lines, key=lambda line: (line[0] is None, line[2])):
        told = []
        for name, text in headers:
            told += [b"-H", name if text is None else name + b"=" + text]
        records = list(group)
        for begin in range(0, len(records), CHUNK):
            more = ["-X", f"transactional.id=compat-{uuid.uuid4()}"] if mode == "transactions" else []
            written(bootstrap, topic, [*options, *more], told, records[begin : begin + CHUNK])


def written(bootstrap: str, topic: str, options: list[str], headers: list[bytes], records: list[tuple]) -> None:  # type: ignore[type-arg]
    text = b""
    for key, value, _ in records:
        text += (b"" if key is None else key + KEY_END) + (value or b"") + RECORD_END
    empty_is_null = ["-Z"] if any(value is None for _, value, _ in records) else []
    command = ["kcat", "-P", "-b", bootstrap, "-t", topic, *empty_is_null, *options]
    delimiters = [*([] if records[0][0] is None else [b"-K", KEY_END]), b"-D", RECORD_END]
    done = subprocess.run([*command, *delimiters, *headers], input=text, capture_output=True, timeout=60)
    if done.returncode or b"ERROR" in done.stderr:
        raise SystemExit(f"error: {done.stderr.decode(errors='replace')[:300]}")


main()
