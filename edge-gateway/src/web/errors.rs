//! What each reason means and what to do, from `docs/errors/`.

use std::fmt::Write;

use super::{Escaped, frame, inline};

/// Each reason's name with its page in Markdown: a heading, and paragraphs.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

pub(super) fn list() -> String {
    let mut content = "<h1>Errors</h1>\n<p>Every error carries one of these reasons: over REST as <code>reason</code> of a problem \
                       (<code>application/problem+json</code>, RFC 9457), over gRPC as <code>google.rpc.ErrorInfo.reason</code>.</p>\n<dl class=\"reasons\">\n"
        .to_owned();
    for (reason, page) in PAGES {
        let title = page.split("\n\n").nth(1).unwrap_or_default();
        let _ = writeln!(
            content,
            "<dt><a href=\"/docs/errors/{0}\">{0}</a></dt><dd>{1}</dd>",
            Escaped(reason),
            inline(title.trim())
        );
    }
    content.push_str("</dl>");
    frame("Errors - Guildhall", &content)
}

pub(super) fn each() -> impl Iterator<Item = (&'static str, String)> {
    PAGES.iter().map(|(reason, page)| (*reason, frame(&format!("{reason} - Guildhall"), &render(page))))
}

fn render(page: &str) -> String {
    let mut content = String::new();
    for paragraph in page.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        let _ = match paragraph.strip_prefix("# ") {
            Some(heading) => writeln!(content, "<h1>{}</h1>", Escaped(heading)),
            None => writeln!(content, "<p>{}</p>", inline(paragraph)),
        };
    }
    content
}
