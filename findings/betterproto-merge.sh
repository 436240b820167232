#!/usr/bin/env bash
# surprise: betterproto forgets what stood in an embedded message when a later part of the same record states other fields of it.
# versions: PyPI betterproto 1.2.5, betterproto2 0.10.0; protobuf 7.36.2 and npm protobufjs 8.8.1 (on node 20 or newer) for comparison
# expected: the merge of both. Protobuf's encoding guide: a parser merges two instances of one embedded message field, so that
#   parsing two encoded messages one after the other gives what parsing each and merging them gives. Deltas rely on it.
# does: it keeps the last instance alone: the input tokens of the first part are 0 afterwards, without an error. Fields of the
#   outer message (status) and lists (tools) are merged as they should be, so that nothing looks cut.

. "$(dirname "$0")/lib/finding.sh"
python_packages betterproto==1.2.5 betterproto2==0.10.0 protobuf==7.36.2
node_packages protobufjs@8.8.1
cat >"$WORK/node/read.js" <<'NODE'
const {root} = require('protobufjs').parse(`syntax = "proto3";
  message Usage {int64 input = 1; int64 output = 2;}
  message Step {string status = 1; Usage usage = 2; repeated string tools = 3;}`)
const step = root.lookupType('Step').decode(Buffer.from(process.argv[2], 'hex'))
console.log(`protobufjs: ${step.status} ${step.usage.input} ${step.usage.output} ${step.tools}`)
NODE
seen=$(timeout 60 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import dataclasses
import subprocess
import sys

import betterproto
import betterproto2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@dataclasses.dataclass
class Usage(betterproto.Message):
    input: int = betterproto.int64_field(1)
    output: int = betterproto.int64_field(2)


@dataclasses.dataclass
class Step(betterproto.Message):
    status: str = betterproto.string_field(1)
    usage: Usage = betterproto.message_field(2)
    tools: list[str] = betterproto.string_field(3)


@dataclasses.dataclass(eq=False, repr=False)
class Usage2(betterproto2.Message):
    input: int = betterproto2.field(1, betterproto2.TYPE_INT64)
    output: int = betterproto2.field(2, betterproto2.TYPE_INT64)


@dataclasses.dataclass(eq=False, repr=False)
class Step2(betterproto2.Message):
    status: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    usage: Usage2 | None = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)
    tools: list[str] = betterproto2.field(3, betterproto2.TYPE_STRING, repeated=True)


file = descriptor_pb2.FileDescriptorProto(name="step.proto", syntax="proto3")
kinds = descriptor_pb2.FieldDescriptorProto
for message, fields in (
    ("Usage", [("input", kinds.TYPE_INT64, 1), ("output", kinds.TYPE_INT64, 1)]),
    ("Step", [("status", kinds.TYPE_STRING, 1), ("usage", kinds.TYPE_MESSAGE, 1), ("tools", kinds.TYPE_STRING, 3)]),
):
    described = file.message_type.add(name=message)
    for number, (name, kind, label) in enumerate(fields, 1):
        field = described.field.add(name=name, number=number, type=kind, label=label)
        if kind == kinds.TYPE_MESSAGE:
            field.type_name = ".Usage"
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
Official = message_factory.GetMessageClass(pool.FindMessageTypeByName("Step"))
first = Official(status="running", usage={"input": 7}, tools=["search"])
second = Official(usage={"output": 9}, tools=["read"])
data = first.SerializeToString() + second.SerializeToString()

for name, step in (
    ("protobuf", Official.FromString(data)), ("betterproto", Step().parse(data)), ("betterproto2", Step2.parse(data)),
):
    print(f"{name}: {step.status} {step.usage.input} {step.usage.output} {','.join(step.tools)}")
sys.stdout.flush()
subprocess.run(["node", "read.js", data.hex()], cwd=sys.argv[1], check=True)
PYTHON
)
verdict "protobuf: running 7 9 search,read
betterproto: running 0 9 search,read
betterproto2: running 0 9 search,read
protobufjs: running 7 9 search,read" "$seen"
