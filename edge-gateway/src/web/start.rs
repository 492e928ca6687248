//! The start page: what runs here, and the first call.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::{Escaped, docs, frame, inline};

pub(super) fn render(openapi: &Value, base: &str) -> String {
    let base = Escaped(base.trim_end_matches('/'));
    let mut content = format!(
        "<h1>Guildhall</h1>\n<p class=\"lead\">The backend of a community and its games. This is its one public port: REST with JSON, gRPC and \
         gRPC-Web.</p>\n<h2>Begin here</h2>\n<pre tabindex=\"0\"><code>curl {base}/api/v1/posts</code></pre>\n\
         <p>An account, and a token that is good for ten minutes:</p>\n<pre tabindex=\"0\"><code>curl {base}/api/v1/auth/register --json \
         '{{\"email\": \"you@example.org\", \"password\": \"a long password\", \"displayName\": \"You\"}}'\n\
         curl {base}/api/v1/auth/login --json '{{\"email\": \"you@example.org\", \"password\": \"a long password\"}}'</code></pre>\n\
         <h2>Where to look</h2>\n<ul class=\"links\">\n\
         <li><a href=\"/docs\">The API</a>: every operation with its parameters and a curl example</li>\n\
         <li><a href=\"/openapi.json\">openapi.json</a>: the same for programs (OpenAPI 3.1)</li>\n\
         <li><a href=\"/docs/errors\">Errors</a>: what each reason means and what to do</li>\n\
         <li><a href=\"/.well-known/oauth-authorization-server\">Discovery</a>: where tokens come from (RFC 8414)</li>\n\
         <li><a href=\"/feeds/posts.atom\">Feed</a> and <a href=\"/sitemap.xml\">sitemap</a> of the published posts</li>\n\
         <li>gRPC on this port too, with reflection: <code>grpcurl -plaintext {host} list</code></li>\n\
         <li>Health: gRPC <code>grpc.health.v1.Health/Check</code> here; <code>/healthz</code>, <code>/readyz</code> and <code>/metrics</code> on the \
         admin port</li>\n</ul>\n<h2>What runs here</h2>\n<ul>\n",
        host = Escaped(base.0.split_once("://").map_or(base.0, |(_, host)| host)),
    );
    for (tag, (operations, description)) in services(openapi) {
        let _ = writeln!(
            content,
            "<li><a href=\"/docs#{}\">{}</a> ({operations} operations) {}</li>",
            docs::anchor(tag),
            Escaped(tag),
            inline(description)
        );
    }
    content.push_str("</ul>");
    frame("Guildhall", &content)
}

/// The services by their tag in the document, with the number of their operations and what they say of themselves.
fn services(openapi: &Value) -> BTreeMap<&str, (usize, &str)> {
    let mut services = BTreeMap::new();
    for operation in docs::operations(openapi) {
        services.entry(operation.tag).or_insert((0, docs::tag_description(openapi, operation.tag))).0 += 1;
    }
    services
}
