#!/usr/bin/env bash
# surprise: The same A2A events make two tasks in the protocol's own SDKs: other history, artifact names, metadata, and parts.
# versions: PyPI a2a-sdk 1.3.0, protobuf 7.36.2; npm @a2a-js/sdk 1.3.0 (on node 20 or newer)
# expected: one task, whichever of the two keeps it. Both implement version 1.0 of the protocol and fold the events of an agent into
#   the task that they store, which a client that did not follow the stream asks for later.
# does: of an event that appends to an artifact, Python takes the parts and the artifact's metadata; JavaScript also its new name and
#   description, and the event's metadata, which Python drops. The message of a status is in the history at once in JavaScript, and
#   still in the status; in Python only when the next status replaces it. So the last message is twice in one task and once in the
#   other. A task that an agent sends again with its second artifact alone replaces the first in Python, and is added in JavaScript.
#   After the end JavaScript ignores another state, with a warning; Python takes it.

. "$(dirname "$0")/lib/finding.sh"
python_packages a2a-sdk==1.3.0 protobuf==7.36.2
node_packages @a2a-js/sdk@1.3.0
# $WORK/*.jsonl: streams of one task's events, as the protocol sends them (ids left out: filled in below)
cat >"$WORK/1-appended.jsonl" <<'JSON'
{"task": {"status": {"state": "TASK_STATE_SUBMITTED"}}}
{"artifactUpdate": {"artifact": {"artifactId": "a", "name": "draft", "parts": [{"text": "one"}]}}}
{"artifactUpdate": {"append": true, "metadata": {"source": "search"}, "artifact": {"artifactId": "a", "name": "report", "description": "whole", "parts": [{"text": "two"}]}}}
{"statusUpdate": {"status": {"state": "TASK_STATE_WORKING", "message": {"messageId": "half", "role": "ROLE_AGENT", "parts": [{"text": "half"}]}}}}
{"statusUpdate": {"status": {"state": "TASK_STATE_COMPLETED", "message": {"messageId": "done", "role": "ROLE_AGENT", "parts": [{"text": "done"}]}}}}
JSON
cat >"$WORK/2-sent-again.jsonl" <<'JSON'
{"task": {"status": {"state": "TASK_STATE_WORKING"}, "artifacts": [{"artifactId": "a", "parts": [{"text": "one"}]}]}}
{"task": {"status": {"state": "TASK_STATE_WORKING"}, "artifacts": [{"artifactId": "b", "parts": [{"text": "two"}]}]}}
JSON
cat >"$WORK/3-after-the-end.jsonl" <<'JSON'
{"task": {"status": {"state": "TASK_STATE_FAILED"}}}
{"statusUpdate": {"status": {"state": "TASK_STATE_COMPLETED"}}}
JSON
cat >"$WORK/fold.py" <<'PYTHON'
import asyncio
import json
import sys

from a2a.server.context import ServerCallContext
from a2a.server.tasks import InMemoryTaskStore, TaskManager
from a2a.types.a2a_pb2 import StreamResponse
from google.protobuf.json_format import MessageToDict, ParseDict


async def main():
    context, store = ServerCallContext(), InMemoryTaskStore()
    tasks = TaskManager(store, context, task_id="t", context_id="c", initial_message=None)
    for line in sys.stdin:
        event = ParseDict(json.loads(line), StreamResponse())
        await tasks.process(getattr(event, event.WhichOneof("payload")))
    print(json.dumps(MessageToDict(await store.get("t", context))))


asyncio.run(main())
PYTHON
cat >"$WORK/node/fold.mjs" <<'JS'
import {readFileSync} from "node:fs";
import {StreamResponse, Task} from "@a2a-js/sdk";
import {InMemoryTaskStore, ResultManager, ServerCallContext} from "@a2a-js/sdk/server";

const context = new ServerCallContext({}), store = new InMemoryTaskStore();
const tasks = new ResultManager(store, context);
for (const line of readFileSync(0, "utf8").trim().split("\n")) {
  const {payload} = StreamResponse.fromJSON(JSON.parse(line));
  await tasks.processEvent({kind: payload.$case, data: payload.value});
}
console.log(JSON.stringify(Task.toJSON(await store.load("t", context))));
JS
cat >"$WORK/show.py" <<'PYTHON'
import json
import sys

task = json.load(sys.stdin)
status, history = task["status"], [message["messageId"] for message in task.get("history", [])]
print(f"  {sys.argv[1]}: {status['state']}, metadata: {', '.join(task.get('metadata', {})) or 'none'}")
print(f"    messages in the history: {', '.join(history) or 'none'}; in the status: {status.get('message', {}).get('messageId', 'none')}")
for artifact in task.get("artifacts", []):
    parts = " + ".join(part["text"] for part in artifact["parts"])
    print(f"    artifact {artifact['artifactId']}: {parts}, name: {artifact.get('name')}, description: {artifact.get('description')}")
PYTHON
seen=$(
  for stream in "$WORK"/*.jsonl; do
    basename "$stream" .jsonl
    sed -i 's/"\(task\)": {/"\1": {"id": "t", "contextId": "c", /; s/Update": {/Update": {"taskId": "t", "contextId": "c", /' "$stream"
    timeout 60 "$WORK/venv/bin/python" "$WORK/fold.py" <"$stream" | python3 "$WORK/show.py" Python
    timeout 60 node "$WORK/node/fold.mjs" <"$stream" 2>/dev/null | python3 "$WORK/show.py" JavaScript
  done
)
verdict "1-appended
  Python: TASK_STATE_COMPLETED, metadata: none
    messages in the history: half; in the status: done
    artifact a: one + two, name: draft, description: None
  JavaScript: TASK_STATE_COMPLETED, metadata: source
    messages in the history: half, done; in the status: done
    artifact a: one + two, name: report, description: whole
2-sent-again
  Python: TASK_STATE_WORKING, metadata: none
    messages in the history: none; in the status: none
    artifact b: two, name: None, description: None
  JavaScript: TASK_STATE_WORKING, metadata: none
    messages in the history: none; in the status: none
    artifact a: one, name: None, description: None
    artifact b: two, name: None, description: None
3-after-the-end
  Python: TASK_STATE_COMPLETED, metadata: none
    messages in the history: none; in the status: none
  JavaScript: TASK_STATE_FAILED, metadata: none
    messages in the history: none; in the status: none" "$seen"
