#!/usr/bin/env bash
# surprise: openai-java's accumulator loses the second answer of a stream if the first ends before it begins, and one with its usage.
# versions: Maven com.openai:openai-java-core:4.70.0; PyPI openai 3.57.0 for comparison
# expected: both answers, as when their chunks come in turns: with n=2 each chunk names its choice by index, and no order is
#   promised. And an answer whose last chunk states the usage, too, as those of many compatible services do: choices and usage
#   are both fields of every chunk. The accumulator of openai for Python reads all three streams.
# does: it takes the stream for finished once all choices seen so far have a finish reason, so that n=2 works by chance: the next
#   chunk raises IllegalStateException, and what it accumulated is one answer that looks complete. Of a chunk with usage it reads
#   nothing else: the finish reason is missing, and the whole answer is withheld, with an error that names the choices.

. "$(dirname "$0")/lib/finding.sh"
python_packages openai==3.57.0
java_packages openai com.openai:openai-java-core:4.70.0 org.slf4j:slf4j-nop:1.7.36
cat >"$WORK/Read.java" <<'JAVA'
import com.openai.core.ObjectMappers;
import com.openai.helpers.ChatCompletionAccumulator;
import com.openai.models.chat.completions.ChatCompletionChunk;
import java.nio.file.Files;
import java.nio.file.Path;

public class Read {
  public static void main(String[] files) throws Exception {
    for (String file : files) {
      String name = Path.of(file).getFileName().toString();
      ChatCompletionAccumulator accumulator = ChatCompletionAccumulator.create();
      try {
        for (String line : Files.readAllLines(Path.of(file))) {
          accumulator.accumulate(ObjectMappers.jsonMapper().readValue(line, ChatCompletionChunk.class));
        }
      } catch (IllegalStateException error) {
        System.out.println(name + ", java, a chunk: " + error.getMessage());
      }
      try {
        accumulator.chatCompletion().choices().forEach(choice -> System.out.println(
            name + ", java: " + choice.message().content().orElse("nothing") + " " + choice.finishReason()));
      } catch (IllegalStateException error) {
        System.out.println(name + ", java, the end: " + error.getMessage());
      }
    }
  }
}
JAVA
mkdir "$WORK/streams"
seen=$(
  PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - "$WORK/streams" <<'PYTHON'
import json
import pathlib
import sys

import event_stream
import openai

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chunk(index, content, reason=None, usage=None):
    choice = {"index": index, "delta": {"content": content}, "finish_reason": reason}
    base = {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    return {**base, "choices": [choice], "usage": usage}


STREAMS = {
    "in_turns": [chunk(0, "Yes"), chunk(1, "No"), chunk(0, None, "stop"), chunk(1, None, "stop")],
    "one_by_one": [chunk(0, "Yes"), chunk(0, None, "stop"), chunk(1, "No"), chunk(1, None, "stop")],
    "with_usage": [chunk(0, "Yes"), chunk(0, None, "stop", USAGE)],
}
client = openai.OpenAI(
    api_key="none",
    max_retries=0,
    base_url=event_stream.serve(lambda name: "".join(f"data: {json.dumps(one)}\n\n" for one in STREAMS[name]).encode()),
)
for name, chunks in STREAMS.items():
    pathlib.Path(sys.argv[1], name).write_text("".join(json.dumps(one) + "\n" for one in chunks))
    with client.chat.completions.stream(model=name, messages=[], n=2) as stream:
        for choice in stream.get_final_completion().choices:
            print(f"{name}, python: {choice.message.content} {choice.finish_reason}")
PYTHON
  timeout 60 java -cp "$WORK/openai/*" "$WORK/Read.java" "$WORK/streams"/*
)
verdict "in_turns, python: Yes stop
in_turns, python: No stop
one_by_one, python: Yes stop
one_by_one, python: No stop
with_usage, python: Yes stop
in_turns, java: Yes stop
in_turns, java: No stop
one_by_one, java, a chunk: Already accumulated the final chunk(s).
one_by_one, java: Yes stop
with_usage, java, a chunk: \`choices\` is required, but was not set
with_usage, java, the end: Final chat completion chunk(s) not yet received." "$seen"
