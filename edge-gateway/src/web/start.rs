//! The start page: what runs here, and the first call.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::{Escaped, docs, frame, inline};

pub(super) fn render(openapi: &Value, base: &str) -> String {
    let mut services = String::new();
    for (tag, (operations, description)) in by_tag(openapi) {
        let (anchor, tag, description) = (docs::anchor(tag), Escaped(tag), inline(description));
        let _ =
            writeln!(services, "<li><a href=\"/docs#{anchor}\">{tag}</a> ({operations} operations) {description}</li>");
    }
    let base = base.trim_end_matches('/');
    let grpc = match base.split_once("://") {
        Some(("https", host)) if !host.contains(':') => format!("{host}:443"),
        Some(("https", host)) => host.to_owned(),
        Some((_, host)) => format!("-plaintext {host}"),
        None => base.to_owned(),
    };
    let content = format!(include_str!("start.html"), base = Escaped(base), grpc = Escaped(&grpc), services = services);
    frame("Guildhall", &content)
}

/// The services by their tag in the document, with the number of their operations and what they say of themselves.
fn by_tag(openapi: &Value) -> BTreeMap<&str, (usize, &str)> {
    let mut services = BTreeMap::new();
    for operation in docs::operations(openapi) {
        services.entry(operation.tag).or_insert((0, docs::tag_description(openapi, operation.tag))).0 += 1;
    }
    services
}
