#!/usr/bin/env bash
# surprise: json_repair changes strings that are whole because a comma behind them is not: \" loses its backslash, and others more.
# versions: PyPI json_repair 0.64.6
# expected: the strings as JSON has them, in a document whose one fault is a comma before the closing brace, as models write it: there is
#   one reading of each, and without the comma the same function gives it.
# does: its own parser, which takes over then, drops a backslash before an escaped quote and the marks of a code fence (of whose \n it
#   leaves the n), takes line ends off the end (the README has it "remove line breaks"), and makes two halves of a character that
#   is written as two escapes, which cannot be encoded. A tool call with such arguments writes another file or runs another
#   command than the model asked for, and nothing tells that anything but the comma was repaired.

. "$(dirname "$0")/lib/finding.sh"
python_packages json_repair==0.64.6
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

import json_repair

for text in ("import os\n", '\\"', "```json\n[1]\n```", "\U0001f600", "one two"):
    whole = json.dumps({"text": text})
    for document in (whole, whole[:-1] + ",}"):
        found = json_repair.loads(document)["text"]
        print(f"{document}:", "the same" if found == text else ascii(found))
PYTHON
)
verdict "{\"text\": \"import os\\n\"}: the same
{\"text\": \"import os\\n\",}: 'import os'
{\"text\": \"\\\\\\\"\"}: the same
{\"text\": \"\\\\\\\"\",}: '\"'
{\"text\": \"\`\`\`json\\n[1]\\n\`\`\`\"}: the same
{\"text\": \"\`\`\`json\\n[1]\\n\`\`\`\",}: 'n[1]\\n\`\`\`'
{\"text\": \"\\ud83d\\ude00\"}: the same
{\"text\": \"\\ud83d\\ude00\",}: '\\ud83d\\ude00'
{\"text\": \"one two\"}: the same
{\"text\": \"one two\",}: the same" "$seen"
