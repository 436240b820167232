#!/usr/bin/env bash
# surprise: openai-go's accumulator adds running totals up: a stream of 1,000 prompt tokens in four chunks has used 4,000.
# versions: Go github.com/openai/openai-go/v3 v3.98.0
# expected: 1,000 and 4, as the last chunk states. By the API reference a chunk's usage is that of the entire request; services of
#   the same interface that put it into each chunk, such as vLLM with continuous_usage_stats, state what was used so far.
# does: it sums prompt, completion and total tokens over the chunks, the cached and reasoning ones, too. With openai's own
#   service, which states the usage once, it is right, as the second stream shows; behind another service, or a proxy, bills and
#   budgets grow with the number of chunks.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/openai/openai-go/v3@v3.98.0 github.com/openai/openai-go/v3/option@v3.98.0 <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

var words = []string{"one", " two", " three", " four"}

func answer(everyChunk bool) http.HandlerFunc {
	return func(to http.ResponseWriter, _ *http.Request) {
		to.Header().Set("content-type", "text/event-stream")
		for at, word := range words {
			end, usage, said := "null", "null", at+1
			if said == len(words) {
				end = `"stop"`
			}
			if everyChunk || said == len(words) {
				usage = fmt.Sprintf(`{"prompt_tokens":1000,"completion_tokens":%d,"total_tokens":%d}`, said, 1000+said)
			}
			choice := fmt.Sprintf(`{"index":0,"delta":{"role":"assistant","content":"%s"},"finish_reason":%s}`, word, end)
			const about = `"id":"c","object":"chat.completion.chunk","created":1,"model":"any"`
			fmt.Fprintf(to, "data: {%s,\"choices\":[%s],\"usage\":%s}\n\n", about, choice, usage)
		}
		fmt.Fprint(to, "data: [DONE]\n\n")
	}
}

func main() {
	for _, everyChunk := range []bool{true, false} {
		service := httptest.NewServer(answer(everyChunk))
		client := openai.NewClient(option.WithAPIKey("none"), option.WithBaseURL(service.URL), option.WithUnsafeAllowHTTP())
		stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{Model: "any"})
		var whole openai.ChatCompletionAccumulator
		var stated openai.CompletionUsage
		for stream.Next() {
			stated = stream.Current().Usage
			if !whole.AddChunk(stream.Current()) {
				panic("refused")
			}
		}
		if err := stream.Err(); err != nil {
			panic(err)
		}
		fmt.Printf("usage in every chunk: %t\n", everyChunk)
		fmt.Println("  last chunk:", stated.PromptTokens, stated.CompletionTokens, stated.TotalTokens)
		fmt.Println("  accumulated:", whole.Usage.PromptTokens, whole.Usage.CompletionTokens, whole.Usage.TotalTokens)
		service.Close()
	}
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "usage in every chunk: true
  last chunk: 1000 4 1004
  accumulated: 4000 10 4010
usage in every chunk: false
  last chunk: 1000 4 1004
  accumulated: 1000 4 1004" "$seen"
