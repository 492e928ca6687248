//! Streams of messages as HTTP bodies: requests cut into messages, one in memory at a time, and answers framed by their format.
use std::{collections::VecDeque, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::HeaderValue;
use status::{Problem, Reason};

use super::{json, media::Format};
use crate::problem;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Converted {
    pub content_type: HeaderValue,
    pub body: Bytes,
    /// The resource's own `etag` field, unquoted, where the answer has one.
    pub etag: Option<String>,
}

/// An answer that goes on.
pub struct Streamed<S> {
    pub content_type: HeaderValue,
    pub body: S,
}

/// A raw stream that failed after its first byte: the connection must be broken off, or the client takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the stream was broken off")]
pub struct Aborted;

/// How the messages of a request stand in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Lines,
    Array,
    /// Each chunk as it comes.
    Chunks,
}

/// Cuts a body into the documents of its messages, none longer than `limit` bytes.
pub fn documents<S>(
    framing: Framing,
    limit: usize,
    body: S,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send + use<S>
where
    S: Stream<Item = Result<Bytes, Problem>> + Send + 'static,
{
    let cutter = Cutter { framing, limit, buffer: BytesMut::new(), state: State::Start, ready: VecDeque::new() };
    let start = Some((Box::pin(body), cutter));
    stream::unfold(start, |source| async {
        let (mut body, mut cutter) = source?;
        match cutter.next(&mut body).await {
            Ok(Some(document)) => Some((Ok(document), Some((body, cutter)))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

struct Cutter {
    framing: Framing,
    limit: usize,
    /// The document that is not complete yet.
    buffer: BytesMut,
    state: State,
    ready: VecDeque<Bytes>,
}

/// Where a JSON array stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// In an element, or before it.
    Element {
        first: bool,
        depth: usize,
        text: Text,
    },
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Cutter {
    async fn next<S>(&mut self, body: &mut Pin<Box<S>>) -> Result<Option<Bytes>, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>>,
    {
        loop {
            if let Some(document) = self.ready.pop_front() {
                return Ok(Some(document));
            }
            match body.next().await {
                Some(chunk) => self.feed(chunk?)?,
                None => return self.finish(),
            }
        }
    }

    fn feed(&mut self, mut chunk: Bytes) -> Result<(), Problem> {
        match self.framing {
            Framing::Chunks => {
                while !chunk.is_empty() {
                    self.ready.push_back(chunk.split_to(chunk.len().min(self.limit.max(1))));
                }
                Ok(())
            }
            Framing::Lines => {
                while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
                    let line = chunk.split_to(end + 1);
                    self.collect(&line[..end])?;
                    self.complete();
                }
                self.collect(&chunk)
            }
            Framing::Array => chunk.iter().try_for_each(|byte| self.element(*byte)),
        }
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        if self.buffer.len() + bytes.len() > self.limit {
            let text = format!("A message of this stream is longer than {} bytes", self.limit);
            return Err(Problem::new(Reason::PayloadTooLarge).message(text));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Hands out what was collected. Blank is no document. Tells whether there was one.
    fn complete(&mut self) -> bool {
        let blank = self.buffer.iter().all(u8::is_ascii_whitespace);
        let document = self.buffer.split().freeze();
        if !blank {
            self.ready.push_back(document);
        }
        !blank
    }

    fn element(&mut self, byte: u8) -> Result<(), Problem> {
        let State::Element { first, depth, text } = self.state else {
            return match (self.state, byte) {
                (_, byte) if byte.is_ascii_whitespace() => Ok(()),
                (State::Start, b'[') => {
                    self.state = State::Element { first: true, depth: 0, text: Text::Outside };
                    Ok(())
                }
                (State::Start, _) => Err(json::malformed("The body must be a JSON array of messages")),
                _ => Err(json::malformed("There is text after the JSON array")),
            };
        };
        let within = |depth, text| State::Element { first, depth, text };
        match (text, byte) {
            (Text::Escaped, _) | (Text::Outside, b'"') => self.state = within(depth, Text::Inside),
            (Text::Inside, b'\\') => self.state = within(depth, Text::Escaped),
            (Text::Inside, b'"') => self.state = within(depth, Text::Outside),
            (Text::Outside, b'{' | b'[') => self.state = within(depth + 1, Text::Outside),
            (Text::Outside, b',' | b']') if depth == 0 => {
                let element = self.complete();
                let empty = byte == b']' && first;
                if !element && !empty {
                    return Err(json::malformed("The JSON array lacks an element"));
                }
                self.state = if byte == b']' { State::End } else { State::Element { first: false, depth, text } };
                return Ok(());
            }
            (Text::Outside, b'}' | b']') => self.state = within(depth.saturating_sub(1), Text::Outside),
            (Text::Inside | Text::Outside, _) => {}
        }
        self.collect(&[byte])
    }

    /// The body has ended.
    fn finish(&mut self) -> Result<Option<Bytes>, Problem> {
        match (self.framing, self.state) {
            (Framing::Array, State::Element { .. }) => Err(json::malformed("The JSON array has no end")),
            (Framing::Lines, _) => {
                self.complete();
                Ok(self.ready.pop_front())
            }
            _ => Ok(None),
        }
    }
}

/// One message of an answer in the frame of its format.
#[derive(Debug, Clone, Copy)]
pub struct Framer {
    pub format: Format,
}

impl Framer {
    /// The frame of the message number `index`, from its JSON.
    pub fn frame(self, index: usize, json: Vec<u8>) -> Bytes {
        let (before, after): (&[u8], &[u8]) = match self.format {
            Format::Lines => (b"", b"\n"),
            Format::Events => (b"data: ", b"\n\n"),
            Format::Array if index == 0 => (b"[", b""),
            Format::Array => (b",\n", b""),
            Format::Json | Format::Raw => (b"", b""),
        };
        if before.is_empty() && after.is_empty() {
            return json.into();
        }
        [before, &json, after].concat().into()
    }

    /// What ends a stream of `count` messages; with a problem, where it failed.
    pub fn end(self, count: usize, failure: Option<&Problem>) -> Result<Option<Bytes>, Aborted> {
        let error = || serde_json::json!({ "error": failure.map(problem::body) }).to_string();
        let frame = match (self.format, failure) {
            (Format::Raw, Some(_)) => return Err(Aborted),
            (Format::Array, None) if count == 0 => "[]".to_owned(),
            (Format::Array, None) => "]".to_owned(),
            (Format::Array, Some(_)) => format!(",\n{}]", error()),
            (Format::Lines, Some(_)) => error() + "\n",
            (Format::Events, Some(failure)) => format!("event: error\ndata: {}\n\n", problem::body(failure)),
            _ => return Ok(None),
        };
        Ok(Some(frame.into()))
    }
}
