//! The edge's own pages: `/`, `/docs`, `/docs/errors/<REASON>` and `/openapi.json`.
//!
//! They are rendered once, at the start: plain HTML that needs no script and loads nothing. To add a page, add it in
//! [`Pages::new`].

mod docs;
mod errors;
mod start;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use aws_lc_rs::digest;
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::freshness;

const STYLE: &str = include_str!("web/style.css");

/// Every page by its path.
pub(crate) struct Pages(BTreeMap<String, Page>);

struct Page {
    media_type: &'static str,
    body: Bytes,
    tag: HeaderValue,
    policy: HeaderValue,
}

impl Pages {
    /// Renders them: from the OpenAPI document, for a server that people reach at `base`.
    pub(crate) fn new(openapi: &Value, base: &str) -> Self {
        let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
        // No script, nothing from elsewhere, and of styles the one that is here.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).expect("directives and base64 are visible ASCII");
        let page = |media_type, body: String| {
            let body = Bytes::from(body);
            Page { media_type, tag: freshness::entity_tag(None, &body), body, policy: policy.clone() }
        };
        let html = |body: String| page("text/html; charset=utf-8", body);
        let mut pages = BTreeMap::from([
            ("/".to_owned(), html(start::render(openapi, base))),
            ("/docs".to_owned(), html(docs::render(openapi, base))),
            ("/docs/errors".to_owned(), html(errors::list())),
            ("/openapi.json".to_owned(), page("application/vnd.oai.openapi+json;version=3.1", format!("{openapi:#}"))),
        ]);
        pages.extend(errors::each().map(|(reason, body)| (format!("/docs/errors/{reason}"), html(body))));
        Self(pages)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn answer(&self, path: &str, request: &HeaderMap) -> Option<Response> {
        let page = self.0.get(path)?;
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::ETAG, page.tag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
        headers.insert(header::CONTENT_SECURITY_POLICY, page.policy.clone());
        if freshness::is_known(request, &page.tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.media_type));
        *response.body_mut() = Body::from(page.body.clone());
        Some(response)
    }
}

/// A page's frame around its content, which is HTML already.
fn frame(title: &str, content: &str) -> String {
    format!(include_str!("web/frame.html"), title = Escaped(title), STYLE = STYLE, content = content)
}

/// Text as HTML shows it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            formatter.write_str(&rest[..at])?;
            formatter.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        formatter.write_str(rest)
    }
}

/// A paragraph with `code` and **strong** words, as the contracts' comments and the pages about errors are written.
fn inline(text: &str) -> String {
    let mut html = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            let _ = write!(html, "<code>{}</code>", Escaped(part));
            continue;
        }
        for (at, part) in part.split("**").enumerate() {
            let part = Escaped(part);
            let _ = if at % 2 == 1 { write!(html, "<strong>{part}</strong>") } else { write!(html, "{part}") };
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_marked_up() {
        assert_eq!(
            Escaped("<a href=\"x\">'&'</a>").to_string(),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
        );
        assert_eq!(inline("**When.** `a < b` & c"), "<strong>When.</strong> <code>a &lt; b</code> &amp; c");
    }

    #[test]
    fn every_reason_has_a_page() {
        let pages = Pages::new(&serde_json::json!({"paths": {}}), "http://localhost:8080");
        for number in 1..200 {
            let Ok(reason) = status::Reason::try_from(number) else { continue };
            assert!(pages.has(&format!("/docs/errors/{}", reason.name())), "docs/errors/{}.md", reason.name());
        }
    }

    #[test]
    fn pages_have_no_script_and_load_nothing() {
        let pages = Pages::new(&serde_json::json!({"paths": {}}), "http://localhost:8080");
        for (path, page) in &pages.0 {
            let body = String::from_utf8_lossy(&page.body);
            for forbidden in ["<script", "src=", "@import", "url("] {
                assert!(!body.contains(forbidden), "{path}: {forbidden}");
            }
        }
    }
}
