//! What every request must keep to, and what every answer carries.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use http_body::Body as _;
use status::{Problem, Reason};

use crate::{config::RequestLimits, gateway::Gateway, grpc, problem::Failure};

/// Refuses a request whose address or headers are too large, or that does not name one host. The listener's own limits
/// are twice as wide: what lies between them gets a readable problem, what is beyond them a bare status.
pub(crate) async fn measure(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let refused = excess(&gateway.config.request, &request).map(Problem::from).or_else(|| hostless(&request));
    match refused {
        Some(problem) if grpc::Kind::of(request.headers()).is_some() => grpc::refuse(problem),
        Some(problem) => Failure::from(problem).into_response(),
        None => next.run(request).await,
    }
}

/// RFC 9112, section 3.2: HTTP/1.1 needs exactly one `Host`. Parties that take different ones for it can be played off
/// against each other.
fn hostless(request: &Request) -> Option<Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let ambiguous = hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11);
    ambiguous.then(|| Problem::new(Reason::MalformedRequest).violation("Host", "must be given once"))
}

fn excess(limits: &RequestLimits, request: &Request) -> Option<Reason> {
    if request.uri().path_and_query().is_some_and(|address| address.as_str().len() > limits.uri_bytes) {
        return Some(Reason::UriTooLong);
    }
    let headers = request.headers();
    (headers.len() > limits.header_count || size(headers) > limits.header_bytes as usize)
        .then_some(Reason::HeadersTooLarge)
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Adds the headers by which browsers are told to take nothing for what it is not.
pub(crate) async fn harden(request: Request, next: Next) -> Response {
    const POLICIES: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Answers of the API are data: should a browser show one, nothing in it may run or load.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in POLICIES {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The answer to HEAD is that to GET without its body, but with its length.
pub(crate) async fn without_head_body(request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if !is_head {
        return response;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = Body::empty();
    response
}
