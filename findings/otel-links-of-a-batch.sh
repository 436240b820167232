#!/usr/bin/env bash
# surprise: A span with links to 500 records keeps those to the first 128 in Java, to the last 128 in Python and JavaScript.
# versions: Maven io.opentelemetry:opentelemetry-sdk-trace:1.68.0; PyPI opentelemetry-sdk 1.45.2; npm @opentelemetry/sdk-trace-base 2.12.1, @opentelemetry/api 1.9.1 (on node 20 or newer)
# expected: a link to each record, as OpenTelemetry's conventions for messaging ask of a consumer of batches (500 records are what
#   a Kafka consumer takes in a poll), or at least the same ones everywhere, as one specification has the limit for all of them.
# does: a span holds 128 links, and once it is full Java refuses what comes later, while Python and JavaScript push out what came
#   first. Whether a record's trace goes on in the batch depends on its place in the poll and on the consumer's language.

. "$(dirname "$0")/lib/finding.sh"
java_packages otel io.opentelemetry:opentelemetry-sdk-trace:1.68.0
python_packages opentelemetry-sdk==1.45.2
node_packages @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/api@1.9.1
cat >"$WORK/Links.java" <<'JAVA'
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.trace.ReadWriteSpan;
import io.opentelemetry.sdk.trace.ReadableSpan;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SpanProcessor;
import io.opentelemetry.sdk.trace.data.SpanData;

public class Links implements SpanProcessor {
  public static void main(String[] none) {
    SpanBuilder builder = SdkTracerProvider.builder().addSpanProcessor(new Links()).build().get("consumer").spanBuilder("process");
    for (int record = 1; record <= 500; record++) {
      builder.addLink(SpanContext.create(
          "00000000000000000000000000000001", String.format("%016x", record), TraceFlags.getSampled(), TraceState.getDefault()));
    }
    builder.startSpan().end();
  }

  public void onEnd(ReadableSpan ended) {
    SpanData span = ended.toSpanData();
    int kept = span.getLinks().size();
    System.out.printf("java: %d to %d, dropped %d%n",
        Long.parseLong(span.getLinks().get(0).getSpanContext().getSpanId(), 16),
        Long.parseLong(span.getLinks().get(kept - 1).getSpanContext().getSpanId(), 16),
        span.getTotalRecordedLinks() - kept);
  }

  public boolean isEndRequired() {
    return true;
  }

  public void onStart(Context parent, ReadWriteSpan span) {}

  public boolean isStartRequired() {
    return false;
  }
}
JAVA
cat >"$WORK/node/links.mjs" <<'NODE'
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

const links = Array.from({ length: 500 }, (_, record) => {
  const spanId = (record + 1).toString(16).padStart(16, "0");
  return { context: { traceId: "0".repeat(31) + "1", spanId, traceFlags: 1 } };
});
const span = new BasicTracerProvider().getTracer("consumer").startSpan("process", { links });
const [first, last] = [span.links[0], span.links.at(-1)].map((link) => parseInt(link.context.spanId, 16));
console.log(`javascript: ${first} to ${last}, dropped ${span.droppedLinksCount}`);
NODE
seen=$(
  timeout 60 java -cp "$WORK/otel/*" "$WORK/Links.java" 2>"$WORK/log"
  timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, TraceFlags

links = [Link(SpanContext(1, record, is_remote=True, trace_flags=TraceFlags(1))) for record in range(1, 501)]
span = TracerProvider().get_tracer("consumer").start_span("process", links=links)
print(f"python: {span.links[0].context.span_id} to {span.links[-1].context.span_id}, dropped {span.dropped_links}")
PYTHON
  cd "$WORK/node" && timeout 60 node links.mjs
)
verdict "java: 1 to 128, dropped 372
python: 373 to 500, dropped 372
javascript: 373 to 500, dropped 372" "$seen"
