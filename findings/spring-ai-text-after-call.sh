#!/usr/bin/env bash
# surprise: Spring AI drops the text that a stream brings after a tool call has begun.
# versions: Maven org.springframework.ai:spring-ai-openai:2.0.1, com.openai:openai-java-core:4.49.0 (which it takes)
# expected: "Checking. One moment." in each case. Content and tool calls are fields of their own in a delta, the pieces of a field are to
#   be added up, and the API reference promises no order among them. Its response without a stream may have both, too.
# does: OpenAiChatModel.stream() keeps all chunks back from the first piece of a call on, and gives one response for them, which has the
#   calls but not the text. That text is in none of its responses, and so in no aggregate. Text before the call is there.

. "$(dirname "$0")/lib/finding.sh"
java_packages spring org.springframework.ai:spring-ai-openai:2.0.1 org.slf4j:slf4j-nop:2.0.17
cat >"$WORK/Stream.java" <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.springframework.ai.chat.messages.AssistantMessage;
import org.springframework.ai.chat.prompt.Prompt;
import org.springframework.ai.openai.OpenAiChatModel;
import org.springframework.ai.openai.OpenAiChatOptions;

public class Stream {
  static String chunk(int index, String delta, String reason) {
    String choice = "{'index': " + index + ", 'delta': {" + delta + "}, 'finish_reason': " + reason + "}";
    String about = "'id': 'c', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'any'";
    return ("data: {" + about + ", 'choices': [" + choice + "]}\n\n").replace('\'', '"');
  }

  static final String CALL = "'tool_calls': [{'index': 0, 'id': 'i', 'type': 'function', 'function': {'name': 'look', 'arguments': '{}'}}]";

  public static void main(String[] none) throws Exception {
    String text = "'role': 'assistant', 'content': 'Checking.'", more = "'content': ' One moment.'";
    String end = chunk(0, "", "'tool_calls'");
    for (var stream : List.of(
        List.of("text, text, call", chunk(0, text, "null"), chunk(0, more, "null"), chunk(0, CALL, "null"), end),
        List.of("text, call, text", chunk(0, text, "null"), chunk(0, CALL, "null"), chunk(0, more, "null"), end),
        List.of("call, text, text", chunk(0, CALL, "null"), chunk(0, text, "null"), chunk(0, more, "null"), end))) {
      var service = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
      service.createContext("/", asked -> {
        byte[] events = (String.join("", stream.subList(1, stream.size())) + "data: [DONE]\n\n").getBytes(StandardCharsets.UTF_8);
        asked.getResponseHeaders().set("content-type", "text/event-stream");
        asked.sendResponseHeaders(200, events.length);
        asked.getResponseBody().write(events);
        asked.close();
      });
      service.start();
      var options = OpenAiChatOptions.builder().baseUrl("http://127.0.0.1:" + service.getAddress().getPort()).apiKey("none").model("any");
      var model = OpenAiChatModel.builder().options(options.build()).build();
      var said = new StringBuilder();
      int calls = 0;
      for (var response : model.stream(new Prompt("Where is my parcel?")).collectList().block()) {
        for (var result : response.getResults()) {
          AssistantMessage message = result.getOutput();
          said.append(message.getText() == null ? "" : message.getText());
          calls += message.getToolCalls().size();
        }
      }
      System.out.println(stream.get(0) + ": [" + said + "], calls: " + calls);
      service.stop(0);
    }
    System.exit(0);
  }
}
JAVA
seen=$(timeout 120 java -cp "$WORK/spring/*" "$WORK/Stream.java" 2>/dev/null)
verdict "text, text, call: [Checking. One moment.], calls: 1
text, call, text: [Checking.], calls: 1
call, text, text: [], calls: 1" "$seen"
