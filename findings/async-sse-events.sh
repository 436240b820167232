#!/usr/bin/env bash
# surprise: Rust's async-sse writes a reconnection time of 3 s as 3 ms, joins words, drops line ends and makes two events of one.
# versions: crates.io async-sse 5.1.0 (the server-sent events of tide), sse-codec 0.3.3; eventsource-stream 0.2.3 reads (futures 0.3.34)
# expected: the time and the texts that were given, and events that do not depend on how the connection cuts them. By the HTML standard
#   retry is in milliseconds, one space behind the colon is left out, each line end within the data is a data line more,
#   and CR LF is one line end.
# does: send_retry takes a Duration and writes its seconds, so that clients come back a thousand times too soon. send puts no space
#   before a text that begins with one, and, as sse-codec's Event does, goes by the lines of the text: its last line end is no line,
#   and an empty text is no event at all. A reader of async-sse whose connection cuts a CR LF in the middle takes the halves
#   for two line ends, which end the event: a value of two lines is two events.

. "$(dirname "$0")/lib/finding.sh"
rust_program async-sse@5.1.0 sse-codec@0.3.3 eventsource-stream@0.2.3 futures@0.3.34 <<'RUST'
use futures::{executor::block_on, io::AsyncReadExt, stream, StreamExt, TryStreamExt};
use std::time::Duration;

fn pieces(parts: &[&str]) -> impl stream::Stream<Item = std::io::Result<Vec<u8>>> {
    stream::iter(parts.iter().map(|part| Ok(part.as_bytes().to_vec())).collect::<Vec<_>>())
}

async fn read(text: &str) -> Vec<String> {
    let events = eventsource_stream::EventStream::new(pieces(&[text]));
    events.map(|event| event.unwrap().data).collect().await
}

async fn written(data: Option<&str>) -> String {
    let (sender, mut encoder) = async_sse::encode();
    let send = async move {
        match data {
            Some(data) => sender.send(None, data, None).await.unwrap(),
            None => sender.send_retry(Duration::from_secs(3), None).await.unwrap(),
        }
    };
    let mut text = String::new();
    futures::join!(send, async { encoder.read_to_string(&mut text).await.unwrap() });
    text
}

fn main() {
    block_on(async {
        println!("3 s: {:?}", written(None).await);
        for data in ["one", " two", "line\n", "\n\n", ""] {
            let other = format!("{}\n", sse_codec::Event::message("message", data, None));
            println!("{data:?}: async-sse {:?}, sse-codec {:?}", read(&written(Some(data)).await).await, read(&other).await);
        }
        for parts in [vec!["data: {\"a\":1,\r\ndata: \"b\":2}\r\n\r\n"], vec!["data: {\"a\":1,\r", "\ndata: \"b\":2}\r\n\r\n"]] {
            let events = async_sse::decode(pieces(&parts).into_async_read());
            let found = events.map(|event| match event.unwrap() {
                async_sse::Event::Message(message) => String::from_utf8(message.data().to_vec()).unwrap(),
                async_sse::Event::Retry(_) => unreachable!(),
            });
            let read: Vec<String> = found.collect().await;
            let other: Vec<String> = eventsource_stream::EventStream::new(pieces(&parts)).map(|event| event.unwrap().data).collect().await;
            println!("in {} pieces: async-sse {read:?}, eventsource-stream {other:?}", parts.len());
        }
    });
}
RUST
seen=$(timeout 60 "$WORK/rust/target/debug/finding")
verdict '3 s: "retry:3\n\n"
"one": async-sse ["one"], sse-codec ["one"]
" two": async-sse ["two"], sse-codec [" two"]
"line\n": async-sse ["line"], sse-codec ["line"]
"\n\n": async-sse ["\n"], sse-codec ["\n"]
"": async-sse [], sse-codec []
in 1 pieces: async-sse ["{\"a\":1,\n\"b\":2}"], eventsource-stream ["{\"a\":1,\n\"b\":2}"]
in 2 pieces: async-sse ["{\"a\":1,", "\"b\":2}"], eventsource-stream ["{\"a\":1,\n\"b\":2}"]' "$seen"
