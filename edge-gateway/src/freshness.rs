//! Caching: `Cache-Control`, entity tags, `304 Not Modified` and compression (RFC 9110, RFC 9111).

use aws_lc_rs::digest;
use axum::{body::Bytes, extract::Request, middleware::Next, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{DefaultPredicate, NotForContentType},
};

use crate::transcode::Rpc;

/// Which representation a URL gives depends on who asks, and for what.
const VARY: HeaderValue = HeaderValue::from_static("accept, authorization");

/// Compresses what is worth it. Streams are left alone but for exports: a compressor holds messages back.
pub(crate) fn compression() -> CompressionLayer<impl Predicate> {
    let live = |_: StatusCode, _: http::Version, _: &HeaderMap, extensions: &http::Extensions| {
        extensions.get::<Live>().is_none()
    };
    let predicate = DefaultPredicate::new()
        .and(NotForContentType::const_new("video/"))
        .and(NotForContentType::const_new("audio/"))
        .and(NotForContentType::const_new("font/woff"))
        .and(NotForContentType::const_new("application/zip"))
        .and(NotForContentType::const_new("application/gzip"))
        .and(NotForContentType::const_new("application/zstd"))
        .and(live);
    CompressionLayer::new().compress_when(predicate)
}

/// Marks an answer whose parts must reach the client one by one, in its extensions.
#[derive(Clone, Copy)]
pub(crate) struct Live;

/// A client that refuses plain bytes gets them where it takes nothing else: a 406 is only a SHOULD (RFC 9110, 12.5.3), and by
/// then the call has been made. So they are accepted last.
fn accept_plain(headers: &mut HeaderMap) {
    let header::Entry::Occupied(mut accepted) = headers.entry(header::ACCEPT_ENCODING) else { return };
    let lines: Vec<_> = accepted.insert_mult(HeaderValue::from_static("identity;q=0.001")).collect();
    for line in lines {
        accepted.append(line);
    }
}

/// A compressed answer has other bytes than the one its tag was made for (RFC 9110, 8.8.3.3).
pub(crate) async fn weaken(mut request: Request, next: Next) -> Response {
    accept_plain(request.headers_mut());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let weak = headers
        .get(header::ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        .map(|tag| [b"W/", tag.as_bytes()].concat());
    if let Some(weak) = weak.and_then(|tag| HeaderValue::from_bytes(&tag).ok()) {
        headers.insert(header::ETAG, weak);
    }
    response
}

/// Writes `Cache-Control` and `Vary` of a successful answer. One to a token is its bearer's alone.
pub(crate) fn cache_control(headers: &mut HeaderMap, rpc: &Rpc, has_token: bool) {
    let control = match rpc.cache {
        None => "no-store".to_owned(),
        Some(cache) if cache.public && !has_token => format!("public, max-age={}", cache.max_age),
        Some(cache) => format!("private, max-age={}", cache.max_age),
    };
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::try_from(control).expect("directives and a number are visible ASCII"),
    );
    headers.append(header::VARY, VARY);
}

/// A strong entity tag: the resource's own, or a digest of the bytes.
pub(crate) fn entity_tag(own: Option<&str>, body: &Bytes) -> HeaderValue {
    own.and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok()).unwrap_or_else(|| {
        let digest = digest::digest(&digest::SHA256, body);
        let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]));
        HeaderValue::try_from(tag).expect("base64 is visible ASCII")
    })
}

/// Whether the client has this representation already: `If-None-Match` compares weakly (RFC 9110, 13.1.2).
pub(crate) fn is_known(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(tag) = tag.to_str().map(opaque) else { return false };
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    known.flat_map(|line| line.split(',')).any(|candidate| candidate.trim() == "*" || opaque(candidate) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(line: &'static str, tag: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(line));
        is_known(&headers, &HeaderValue::from_static(tag))
    }

    #[test]
    fn entity_tags_are_compared_weakly_and_in_lists() {
        assert!(known("\"a\"", "\"a\""));
        assert!(known("W/\"a\"", "\"a\""));
        assert!(known("\"b\", W/\"a\"", "\"a\""));
        assert!(known("*", "\"a\""));
        assert!(!known("\"b\"", "\"a\""));
        assert!(!known("a", "\"a\""));
    }

    #[test]
    fn a_resource_brings_its_own_tag_and_other_answers_get_one_from_their_bytes() {
        assert_eq!(entity_tag(Some("v3"), &Bytes::new()), "\"v3\"");
        let (one, other) = (entity_tag(None, &Bytes::from("{}")), entity_tag(None, &Bytes::from("[]")));
        assert_ne!(one, other);
        assert_eq!(one, entity_tag(None, &Bytes::from("{}")));
        assert_eq!(entity_tag(Some("line\nbreak"), &Bytes::from("{}")), one, "a tag that fits no header is not used");
    }
}
