//! The conversion between HTTP's parts and protobuf messages, as an interface: one engine is compiled for each route.
use bytes::Bytes;
use status::Problem;

/// Converts the messages of one route.
pub trait Engine: Send + Sync {
    /// Builds the protobuf bytes of a request message. What the path says beats what the body says, and that beats the query.
    fn request(&self, parts: &Parts<'_>) -> Result<Bytes, Problem>;

    /// Converts the protobuf bytes of an answer.
    fn response(&self, message: &[u8]) -> Result<Answer, Problem>;
}

/// What a request message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The captured values, decoded, in the order of the template's variables.
    pub variables: &'a [String],
    /// The raw query.
    pub query: Option<&'a str>,
    pub content: Content<'a>,
    /// The entity tag of `If-Match`, without quotes.
    pub etag: Option<&'a str>,
    pub idempotency_key: Option<&'a str>,
}

/// The body.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// No byte was sent: not the same as `{}`, nor as `null`.
    Absent,
    Json(&'a [u8]),
    /// For `google.api.HttpBody`.
    Raw {
        content_type: Option<&'a str>,
        data: &'a [u8],
    },
}

/// A converted answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Json {
        json: Vec<u8>,
        /// The resource's own `etag` field, where it has one.
        etag: Option<String>,
    },
    /// A `google.api.HttpBody`.
    Raw { content_type: String, data: Bytes },
}
