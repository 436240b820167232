#!/usr/bin/env bash
# surprise: r3labs/sse's server replaces the ids of the events it is given, and sends a client that resumes its last event again.
# versions: Go github.com/r3labs/sse/v2 v2.10.0
# expected: events with the ids they were published under, such as a log's offsets, and from a client's Last-Event-ID on those
#   after it. In server-sent events the last id tells the server what was received, so that it can go on behind.
# does: a replaying stream, which is the default, counts the events from 0 and writes that over each Event.ID. It replays from
#   the Last-Event-ID inclusive, so that whoever reconnects after the last event gets it again, and a delta is appended twice.
#   A client that knows the published ids (42) gets nothing of the log, neither an event nor an error.

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/r3labs/sse/v2@v2.10.0 <<'GO'
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/r3labs/sse/v2"
)

func read(url, last string) string {
	enough, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	request, _ := http.NewRequestWithContext(enough, "GET", url+"?stream=run", nil)
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	var lines []string
	for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
		if scanner.Text() != "" {
			lines = append(lines, scanner.Text())
		}
	}
	return strings.Join(lines, ", ")
}

func main() {
	server := sse.New()
	server.CreateStream("run")
	web := httptest.NewServer(http.HandlerFunc(server.ServeHTTP))
	for offset, text := range []string{"one", "two", "three"} {
		server.Publish("run", &sse.Event{ID: []byte(fmt.Sprint(41 + offset)), Data: []byte(text)})
	}
	time.Sleep(500 * time.Millisecond)
	for _, last := range []string{"", "1", "2", "42"} {
		fmt.Printf("last id %q: %s\n", last, read(web.URL, last))
	}
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "last id \"\": id: 0, data: one, id: 1, data: two, id: 2, data: three
last id \"1\": id: 1, data: two, id: 2, data: three
last id \"2\": id: 2, data: three
last id \"42\": " "$seen"
