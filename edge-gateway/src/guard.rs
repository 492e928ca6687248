//! What every request must keep to, and what every answer carries.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, uri::Authority};
use http_body::Body as _;
use status::{Problem, Reason};

use crate::{config::RequestLimits, gateway::Gateway, grpc, problem::Failure};

pub(crate) async fn measure(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    match refusal(&gateway.config.request, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Refuses a request whose address or headers are too large, or that can be read in two ways. The listener's own limits
/// are twice as wide: what lies between them gets a readable problem, what is beyond them a bare status.
pub(crate) fn refusal(limits: &RequestLimits, request: &Request) -> Option<Response> {
    let problem = excess(limits, request).map(Problem::from).or_else(|| ambiguity(request))?;
    Some(match grpc::Kind::of(request.headers()) {
        Some(kind) => kind.refuse(problem),
        None => Failure::from(problem).into_response(),
    })
}

/// What parties on the way may take for different things: they could be played off against each other.
fn ambiguity(request: &Request) -> Option<Problem> {
    let malformed = |header, rule| Some(Problem::new(Reason::MalformedRequest).violation(header, rule));
    if !names_one_host(request) {
        return malformed("Host", "must be given once, and agree with `:authority`");
    }
    // RFC 9112, section 6.1. A coding below the last one would be left on the body.
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if plain && codings.next().is_none() { None } else { malformed("Transfer-Encoding", "must be `chunked` alone") }
}

/// One `Host`, or `:authority`, or both that mean the same (RFC 9112, section 3.2; RFC 9113, section 8.3.1). HTTP/1.0 may
/// leave it out; in HTTP/1.1 the address of an absolute request line stands for itself.
fn names_one_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(|host| Authority::try_from(host.as_bytes()));
    let authority = request.uri().authority().filter(|_| request.version() >= Version::HTTP_2);
    let port = |authority: &Authority| {
        authority.port_u16().unwrap_or(if request.uri().scheme_str() == Some("https") { 443 } else { 80 })
    };
    match (authority, hosts.next(), hosts.next()) {
        (None, None, None) => request.version() < Version::HTTP_11,
        (Some(_), None, None) | (None, Some(Ok(_)), None) => true,
        (Some(authority), Some(Ok(host)), None) => {
            authority.host().eq_ignore_ascii_case(host.host()) && port(authority) == port(&host)
        }
        _ => false,
    }
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

/// The answer to HEAD is that to GET without its body, but with its length. Outside of all that writes bodies.
pub(crate) async fn without_head_body(request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if !is_head {
        return response;
    }
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    // One of an unknown length, where GET's has none: an empty body would be announced as a length of 0.
    *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    response
}
