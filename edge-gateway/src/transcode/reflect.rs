//! The engine on `prost-reflect`: JSON to a dynamic message to bytes, and back.
use std::collections::HashSet;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value, prost::Message as _};
use status::{Problem, Reason};

use super::{
    engine::{Answer, Content, Engine, Parts},
    json::{self, OutputOnly, Reader},
    mask, query, scalar, wire,
};

/// A compiled route.
pub struct Reflect {
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// The fields that the template's variables set.
    pub variables: Vec<Vec<FieldDescriptor>>,
    pub body: Body,
    /// The field of the answer that is the whole body.
    pub response_body: Option<FieldDescriptor>,
    /// The field that `If-Match` fills.
    pub etag: Option<Vec<FieldDescriptor>>,
    /// The field that `Idempotency-Key` fills.
    pub idempotency_key: Option<Vec<FieldDescriptor>>,
    /// The update mask, where a body without one says what changes.
    pub mask: Option<FieldDescriptor>,
    pub output_only: OutputOnly,
}

/// What the body of a request is (`google.api.HttpRule.body`).
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Nothing: a byte in it is an error.
    Nothing,
    /// The message, but for what the path says; nothing is left to the query.
    Whole,
    Field(FieldDescriptor),
}

impl Engine for Reflect {
    fn request(&self, parts: &Parts<'_>) -> Result<Bytes, Problem> {
        let mut message = DynamicMessage::new(self.input.clone());
        let mut given = self.query(&mut message, parts.query)?;
        self.body(&mut message, parts, &mut given)?;
        for (path, text) in self.variables.iter().zip(parts.variables) {
            let field = path.last().expect("a resolved path has a field");
            let value = scalar::from_text(&field.kind(), text)
                .map_err(|expected| json::invalid(query::json_path(path), expected))?;
            query::set(&mut message, path, value)?;
            given.insert(query::proto_path(path));
        }
        self.headers(&mut message, parts, &given)?;
        Ok(message.encode_to_vec().into())
    }

    fn response(&self, message: &[u8]) -> Result<Answer, Problem> {
        let broken = |cause: Box<dyn std::error::Error + Send + Sync>| Problem::new(Reason::Internal).because(cause);
        let message = DynamicMessage::decode(self.output.clone(), message).map_err(|error| broken(error.into()))?;
        let body = self.response_body.as_ref().map(|field| message.get_field(field));
        let shown = match &body {
            None => Some(&message),
            Some(value) => value.as_message(),
        };
        if let Some(raw) = shown.filter(|message| is_http_body(&prost_reflect::ReflectMessage::descriptor(*message))) {
            return Ok(raw_answer(raw));
        }
        let json = match &self.response_body {
            None => wire::message(&message),
            Some(field) => wire::field(&message, field),
        };
        let etag = shown.and_then(|message| Some(message.get_field_by_name("etag")?.as_str()?.to_owned()));
        Ok(Answer::Json { json: json.map_err(|error| broken(error.into()))?, etag: etag.filter(|tag| !tag.is_empty()) })
    }
}

impl Reflect {
    /// Gives the paths of the fields that the query set, in proto names.
    fn query(&self, message: &mut DynamicMessage, query: Option<&str>) -> Result<HashSet<String>, Problem> {
        match (query, &self.body) {
            (None, _) => Ok(HashSet::new()),
            (Some(query), Body::Whole) => match query::pairs(query).next() {
                Some(pair) => {
                    Err(json::unknown(pair?.0).message("The fields of this request are in its body, none in its query"))
                }
                None => Ok(HashSet::new()),
            },
            (Some(query), _) => query::apply(query, message, &self.output_only),
        }
    }

    fn body(
        &self,
        message: &mut DynamicMessage,
        parts: &Parts<'_>,
        given: &mut HashSet<String>,
    ) -> Result<(), Problem> {
        let track = self.mask.is_some() || parts.etag.is_some() || parts.idempotency_key.is_some();
        match (&self.body, parts.content) {
            (_, Content::Absent) => Ok(()),
            (Body::Nothing, _) => Err(json::malformed("This request takes no body")),
            (Body::Whole, Content::Json(text)) => {
                given.extend(Reader::new(&self.output_only, track).message(text, message)?);
                Ok(())
            }
            (Body::Whole, Content::Raw { content_type, data }) => {
                *message = http_body(&self.input, content_type, data);
                Ok(())
            }
            (Body::Field(field), Content::Json(text)) => {
                let (value, changed) = Reader::new(&self.output_only, track).field(text, field)?;
                message.clear_field(field);
                let Some(value) = value else { return Ok(()) };
                assign(message, field, value)?;
                if let Some(mask) = self.mask.as_ref().filter(|mask| !given.contains(mask.name())) {
                    assign(message, mask, mask::of(mask, &changed))?;
                }
                given.extend(changed.iter().map(|path| format!("{}.{path}", field.name())));
                Ok(())
            }
            (Body::Field(field), Content::Raw { content_type, data }) => match field.kind() {
                Kind::Message(kind) => assign(message, field, Value::Message(http_body(&kind, content_type, data))),
                _ => Err(json::malformed("This request takes no raw body")),
            },
        }
    }

    /// Fills from headers what the request itself did not say. One that says something else there is refused: whichever of the
    /// two were dropped, a client would rely on what nobody looks at.
    fn headers(&self, message: &mut DynamicMessage, parts: &Parts<'_>, given: &HashSet<String>) -> Result<(), Problem> {
        let headers =
            [("If-Match", &self.etag, parts.etag), ("Idempotency-Key", &self.idempotency_key, parts.idempotency_key)];
        for (header, path, text) in headers {
            let (Some(path), Some(text)) = (path, text) else { continue };
            let (field, parents) = path.split_last().expect("a resolved path has a field");
            // Without the resource there is none that could have an entity tag.
            let Some(holder) = holder(message, parents) else { continue };
            let same = holder.get_field(field).as_str() == Some(text);
            if !given.contains(&query::proto_path(path)) {
                query::set(message, path, Value::String(text.to_owned()))?;
            } else if !same {
                return Err(json::invalid(query::json_path(path), format!("is not what the header `{header}` says")));
            }
        }
        Ok(())
    }
}

/// The message at the end of `parents`; none where one of them is not set.
fn holder<'m>(message: &'m DynamicMessage, parents: &[FieldDescriptor]) -> Option<&'m DynamicMessage> {
    parents.iter().try_fold(message, |holder, parent| {
        let (_, value) = holder.fields().find(|(field, _)| field.number() == parent.number())?;
        value.as_message()
    })
}

fn assign(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) -> Result<(), Problem> {
    json::assign(message, field, value).map_err(|expected| json::invalid(field.json_name(), expected))
}

/// Whether the message is `google.api.HttpBody`: bytes of any media type, and no JSON.
pub fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

fn http_body(kind: &MessageDescriptor, content_type: Option<&str>, data: &[u8]) -> DynamicMessage {
    let mut body = DynamicMessage::new(kind.clone());
    if let Some(content_type) = content_type {
        body.set_field_by_name("content_type", Value::String(content_type.to_owned()));
    }
    body.set_field_by_name("data", Value::Bytes(Bytes::copy_from_slice(data)));
    body
}

fn raw_answer(body: &DynamicMessage) -> Answer {
    let content_type =
        body.get_field_by_name("content_type").and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default();
    let data = body.get_field_by_name("data").and_then(|value| value.as_bytes().cloned()).unwrap_or_default();
    Answer::Raw { content_type, data }
}
