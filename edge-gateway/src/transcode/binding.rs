//! A route, and a request that took it.
use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header::IF_MATCH};
use prost_reflect::FieldDescriptor;
use status::{Problem, Reason};

use super::{
    engine::{Answer, Content, Engine, Parts},
    json,
    media::{self, Format},
    reflect::Body,
    router,
    rpc::Rpc,
    stream::{Aborted, Converted, Framer, Framing, Streamed, documents},
    template::Template,
};

/// One HTTP rule of one RPC, compiled.
pub struct Binding {
    pub rpc: Arc<Rpc>,
    pub method: Method,
    /// The template as the contract has it.
    pub text: String,
    pub template: Template,
    pub body: Body,
    pub response_body: Option<FieldDescriptor>,
    pub takes: Payload,
    pub gives: Payload,
    /// Whether `If-Match` fills a field.
    pub if_match: bool,
    pub engine: Box<dyn Engine>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Nothing,
    Json,
    /// A `google.api.HttpBody`.
    Raw,
}

impl Binding {
    /// The forms that an answer can have, the preferred one first.
    pub fn formats(&self) -> &'static [Format] {
        match (self.gives, self.rpc.server_streaming) {
            (Payload::Raw, _) => &[Format::Raw],
            (_, false) => &[Format::Json],
            (_, true) => &[Format::Lines, Format::Events, Format::Array],
        }
    }
}

/// A request's route with the path that took it. Owned: it outlives a reload of the table.
#[derive(Clone)]
pub struct Match {
    binding: Arc<Binding>,
    path: Arc<str>,
}

impl Match {
    pub(super) fn new(binding: Arc<Binding>, path: &str) -> Self {
        Self { binding, path: path.into() }
    }

    pub fn rpc(&self) -> &Arc<Rpc> {
        &self.binding.rpc
    }

    /// The path template as the contract has it, for logs and metrics.
    pub fn template(&self) -> &str {
        &self.binding.text
    }

    /// The form of the answer by `Accept`; NOT_ACCEPTABLE where it has none of the accepted ones. Ask before calling.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Format, Problem> {
        match self.binding.formats() {
            [Format::Raw] => Ok(Format::Raw),
            offered => Format::negotiate(offered, headers),
        }
    }

    /// The one request message of an RPC without client streaming. `If-Match` fills the `etag`, and `Idempotency-Key` the
    /// annotated field, where path, query and body did not set them; where they set another, the request is refused.
    pub fn request(&self, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Bytes, Problem> {
        let content_type = text(headers.get(http::header::CONTENT_TYPE));
        let content = match self.binding.takes {
            Payload::Raw if !body.is_empty() || content_type.is_some() => Content::Raw { content_type, data: body },
            _ if body.is_empty() => Content::Absent,
            Payload::Json => {
                media::require_json(headers)?;
                Content::Json(body)
            }
            Payload::Nothing | Payload::Raw => Content::Raw { content_type, data: body },
        };
        self.binding.engine.request(&Parts {
            variables: &self.variables()?,
            query,
            content,
            etag: if_match(headers)?,
            idempotency_key: idempotency_key(headers)?,
        })
    }

    /// The request messages of a client-streaming RPC, one at a time: lines of JSON, elements of a JSON array or raw chunks, by
    /// `Content-Type`. A path's variables and the query are set in each message; for raw chunks, like the media type, in the first alone.
    /// Ends after the first error. `limit` is the most bytes of one message.
    pub fn request_stream<S>(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
        body: S,
        limit: usize,
    ) -> Result<impl Stream<Item = Result<Bytes, Problem>> + Send + use<S>, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + 'static,
    {
        let framing = match self.binding.takes {
            Payload::Nothing | Payload::Raw => Framing::Chunks,
            Payload::Json => framing(headers)?,
        };
        let requests = Requests {
            binding: Arc::clone(&self.binding),
            variables: self.variables()?,
            query: query.map(str::to_owned),
            content_type: text(headers.get(http::header::CONTENT_TYPE)).map(str::to_owned),
            framing,
            documents: Box::pin(documents(framing, limit, body).fuse()),
            count: 0,
        };
        Ok(stream::unfold(Some(requests), |requests| async {
            let mut requests = requests?;
            let message = requests.next().await?;
            Some(if message.is_ok() { (message, Some(requests)) } else { (message, None) })
        }))
    }

    /// The answer of an RPC without server streaming.
    pub fn response(&self, message: &[u8]) -> Result<Converted, Problem> {
        Ok(match self.binding.engine.response(message)? {
            Answer::Json { json, etag } => {
                Converted { content_type: Format::Json.content_type(), body: json.into(), etag }
            }
            Answer::Raw { content_type, data } => {
                Converted { content_type: raw_type(&content_type), body: data, etag: None }
            }
        })
    }

    /// The answer of a server-streaming RPC. Waits for the first message: what fails until then is an error with a status of its
    /// own; what fails later ends the stream with an error frame of its format, or breaks a raw one off. Dropping the body drops
    /// `messages`.
    pub async fn response_stream<S>(
        &self,
        format: Format,
        messages: S,
    ) -> Result<Streamed<impl Stream<Item = Result<Bytes, Aborted>> + Send + use<S>>, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + 'static,
    {
        let mut answers = Answers {
            binding: Arc::clone(&self.binding),
            messages: Box::pin(messages),
            framer: Framer { format },
            count: 0,
            content_type: format.content_type(),
        };
        let first = answers.next().await.transpose()?;
        let content_type = answers.content_type.clone();
        let end = first.is_none();
        let head = stream::iter(first.map(Ok));
        let tail = stream::unfold(Some((answers, end)), |state| async {
            let (mut answers, end) = state?;
            match if end { None } else { answers.next().await } {
                Some(Ok(frame)) => Some((Ok(frame), Some((answers, false)))),
                Some(Err(problem)) => answers.end(Some(&problem)).map(|frame| (frame, None)),
                None => answers.end(None).map(|frame| (frame, None)),
            }
        });
        Ok(Streamed { content_type, body: head.chain(tail) })
    }

    fn variables(&self) -> Result<Vec<String>, Problem> {
        let template = &self.binding.template;
        let path = match &template.verb {
            Some(verb) => &self.path[..self.path.len() - verb.len() - 1],
            None => &*self.path,
        };
        let segments = router::split(path).unwrap_or_default();
        let capture = |variable| template.capture(variable, &segments);
        let captured: Option<Vec<_>> = template.variables.iter().map(capture).collect();
        captured.ok_or_else(|| json::malformed("The path has a malformed escape, or is not UTF-8"))
    }
}

/// The messages of a request, as they come.
struct Requests {
    binding: Arc<Binding>,
    variables: Vec<String>,
    query: Option<String>,
    content_type: Option<String>,
    framing: Framing,
    documents: Pin<Box<dyn Stream<Item = Result<Bytes, Problem>> + Send>>,
    count: usize,
}

impl Requests {
    async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        let document = self.documents.next().await;
        self.count += 1;
        let whole = self.framing != Framing::Chunks || self.count == 1;
        let data = match document {
            Some(Ok(document)) => document,
            Some(Err(problem)) => return Some(Err(problem)),
            // A raw body without a byte is still one message.
            None if self.framing == Framing::Chunks && self.count == 1 => Bytes::new(),
            None => return None,
        };
        let content = match self.framing {
            Framing::Chunks if data.is_empty() && self.binding.takes == Payload::Nothing => Content::Absent,
            Framing::Chunks => {
                Content::Raw { content_type: self.content_type.as_deref().filter(|_| whole), data: &data }
            }
            Framing::Lines | Framing::Array => Content::Json(&data),
        };
        let parts = Parts {
            variables: if whole { &self.variables } else { &[] },
            query: self.query.as_deref().filter(|_| whole),
            content,
            etag: None,
            idempotency_key: None,
        };
        Some(self.binding.engine.request(&parts).map_err(|problem| {
            let text = format!("Message {}: {}", self.count, problem.text());
            problem.message(text)
        }))
    }
}

/// The frames of an answer, as its messages come.
struct Answers<S> {
    binding: Arc<Binding>,
    messages: Pin<Box<S>>,
    framer: Framer,
    count: usize,
    content_type: HeaderValue,
}

impl<S: Stream<Item = Result<Bytes, Problem>>> Answers<S> {
    async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(problem) => return Some(Err(problem)),
        };
        Some(self.binding.engine.response(&message).map(|answer| {
            let frame = match answer {
                Answer::Json { json, .. } => self.framer.frame(self.count, json),
                Answer::Raw { content_type, data } => {
                    if self.count == 0 {
                        self.content_type = raw_type(&content_type);
                    }
                    data
                }
            };
            self.count += 1;
            frame
        }))
    }

    fn end(&self, failure: Option<&Problem>) -> Option<Result<Bytes, Aborted>> {
        if let Some(problem) = failure {
            let cause = problem.cause().map(|cause| cause as &dyn std::error::Error);
            tracing::warn!(rpc.path = %self.binding.rpc.path, reason = problem.reason().name(), error = cause, "an answer broke off");
        }
        self.framer.end(self.count, failure).transpose()
    }
}

/// A JSON body is an array of messages; lines are the default.
fn framing(headers: &HeaderMap) -> Result<Framing, Problem> {
    match media::content_type(headers).as_deref() {
        None => Ok(Framing::Lines),
        Some(media::JSON) => Ok(Framing::Array),
        Some(essence) if media::LINES.contains(&essence) => Ok(Framing::Lines),
        Some(_) => Err(media::unsupported(&[media::LINES[0], media::JSON])),
    }
}

fn raw_type(content_type: &str) -> HeaderValue {
    content_type.parse().ok().filter(|_| !content_type.is_empty()).unwrap_or_else(|| Format::Raw.content_type())
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

/// The one entity tag of `If-Match`, without quotes and the mark of weakness, which compression adds on the way. `*` asks for nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let error = || Problem::new(Reason::MalformedRequest).violation("If-Match", "must be one entity tag");
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.to_str().map_err(|_| error())?.trim();
    if values.next().is_some() {
        return Err(error());
    }
    if value == "*" {
        return Ok(None);
    }
    let value = value.strip_prefix("W/").unwrap_or(value);
    let tag = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or_else(error)?,
        None => value,
    };
    if tag.is_empty() || tag.contains(['"', ',']) { Err(error()) } else { Ok(Some(tag)) }
}

/// The one key of `Idempotency-Key`. How long it may be is the field's own rule.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().map(|key| key.trim().trim_matches('"'));
    match (key, values.next()) {
        (Some(key), None) if !key.is_empty() => Ok(Some(key)),
        _ => {
            Err(Problem::new(Reason::MalformedRequest).violation("Idempotency-Key", "must be one key of visible ASCII"))
        }
    }
}
