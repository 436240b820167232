#!/usr/bin/env bash
# surprise: Both MCP SDKs for Go hand a tool the run 9007199254740992 when the call says 9007199254740993.
# versions: Go github.com/modelcontextprotocol/go-sdk v1.8.0, github.com/mark3labs/mcp-go v1.2.1
# expected: the integer of the call, as the tool's input is an int64 and its schema says integer, which JSON does not bound; or an
#   error, as the first SDK gives one for a number that the field cannot hold.
# does: the arguments are decoded into doubles before the tool sees them: the first SDK does so to put defaults in, encodes them again
#   and fills the struct from that; of the second RequireInt() takes the double. What the tool answers as structured output goes the
#   same way. The tool looks up, or cancels, another run. Ids as texts pass. (Reported as go-sdk issue 1201 and mcp-go issue 913.)

. "$(dirname "$0")/lib/finding.sh"
go_program github.com/modelcontextprotocol/go-sdk/mcp@v1.8.0 github.com/mark3labs/mcp-go/server@v1.2.1 github.com/mark3labs/mcp-go/mcp@v1.2.1 <<'GO'
package main

import (
	"context"
	"encoding/json"
	"fmt"

	mark3labs "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	official "github.com/modelcontextprotocol/go-sdk/mcp"
)

type run struct {
	Run int64 `json:"run"`
}

const arguments = `{"run":9007199254740993}`

func main() {
	background := context.Background()
	fmt.Println("call:", arguments)

	first := official.NewServer(&official.Implementation{Name: "server", Version: "1"}, nil)
	official.AddTool(first, &official.Tool{Name: "look"}, func(_ context.Context, call *official.CallToolRequest, in run) (*official.CallToolResult, run, error) {
		fmt.Printf("go-sdk: arguments %s, tool gets %d\n", call.Params.Arguments, in.Run)
		return nil, run{9007199254740993}, nil
	})
	ours, theirs := official.NewInMemoryTransports()
	if _, err := first.Connect(background, ours, nil); err != nil {
		panic(err)
	}
	session, err := official.NewClient(&official.Implementation{Name: "client", Version: "1"}, nil).Connect(background, theirs, nil)
	if err != nil {
		panic(err)
	}
	result, err := session.CallTool(background, &official.CallToolParams{Name: "look", Arguments: json.RawMessage(arguments)})
	if err != nil {
		panic(err)
	}
	fmt.Println("go-sdk: result", result.Content[0].(*official.TextContent).Text)

	second := server.NewMCPServer("server", "1")
	second.AddTool(mark3labs.NewTool("look", mark3labs.WithNumber("run")), func(_ context.Context, call mark3labs.CallToolRequest) (*mark3labs.CallToolResult, error) {
		got, err := call.RequireInt("run")
		fmt.Printf("mcp-go: tool gets %d, %v\n", got, err)
		return mark3labs.NewToolResultText("done"), nil
	})
	second.HandleMessage(background, json.RawMessage(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":`+arguments+`}}`))
}
GO
seen=$(timeout 60 "$WORK/go/program")
verdict "call: {\"run\":9007199254740993}
go-sdk: arguments {\"run\":9007199254740993}, tool gets 9007199254740992
go-sdk: result {\"run\":9007199254740992}
mcp-go: tool gets 9007199254740992, <nil>" "$seen"
