//! The API as a page, from the OpenAPI document: operations by service, and the schemas that they use.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value, json};

use super::{Escaped, frame, inline};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// How deep an example body goes: enough to show the shape, too little for a schema that contains itself.
const EXAMPLE_DEPTH: usize = 3;

/// One operation of the document.
pub(super) struct Operation<'a> {
    pub(super) tag: &'a str,
    path: &'a str,
    method: &'static str,
    value: &'a Value,
}

pub(super) fn operations(openapi: &Value) -> impl Iterator<Item = Operation<'_>> {
    let paths = openapi["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        METHODS.into_iter().filter_map(move |method| {
            let value = item.get(method)?;
            let tag = value["tags"][0].as_str().unwrap_or("API");
            Some(Operation { tag, path, method, value })
        })
    })
}

pub(super) fn tag_description<'a>(openapi: &'a Value, tag: &str) -> &'a str {
    let tags = openapi["tags"].as_array().into_iter().flatten();
    tags.filter(|described| described["name"] == tag)
        .find_map(|described| described["description"].as_str())
        .unwrap_or_default()
}

/// A name as the fragment of a link.
pub(super) fn anchor(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' }).collect()
}

pub(super) fn render(openapi: &Value, base: &str) -> String {
    let mut by_tag: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    for operation in operations(openapi) {
        by_tag.entry(operation.tag).or_default().push(operation);
    }
    let mut content = format!(
        "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
        Escaped(openapi["info"]["title"].as_str().unwrap_or("API")),
        inline(openapi["info"]["description"].as_str().unwrap_or_default()),
    );
    content.push_str(CONVENTIONS);
    content.push_str("<nav aria-label=\"Services\"><ul class=\"services\">\n");
    for (tag, operations) in &by_tag {
        let _ = writeln!(
            content,
            "<li><a href=\"#{}\">{}</a> <small>{}</small></li>",
            anchor(tag),
            Escaped(tag),
            operations.len()
        );
    }
    content.push_str("<li><a href=\"#schemas\">Schemas</a></li>\n</ul></nav>\n");
    for (tag, operations) in by_tag {
        let description = inline(tag_description(openapi, tag));
        let _ = writeln!(content, "<section><h2 id=\"{}\">{}</h2>\n<p>{description}</p>", anchor(tag), Escaped(tag));
        for operation in operations {
            operation.render(openapi, base, &mut content);
        }
        content.push_str("</section>\n");
    }
    content.push_str("<section><h2 id=\"schemas\">Schemas</h2>\n");
    for (name, schema) in openapi["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = writeln!(content, "<details id=\"schema-{}\"><summary>{}</summary>", anchor(name), Escaped(name));
        describe(schema, &mut content);
        content.push_str("</details>\n");
    }
    content.push_str("</section>");
    frame("API - Guildhall", &content)
}

const CONVENTIONS: &str = "<details><summary>Conventions</summary><ul>\
<li>Send the access token as <code>Authorization: Bearer …</code>.</li>\
<li><code>Request-Timeout: &lt;seconds&gt;</code> sets the deadline of a call; past it the work behind it stops.</li>\
<li><code>Idempotency-Key</code> on a create makes it safe to send again; <code>If-Match</code> refuses a change of what is no longer current.</li>\
<li>Streams come as server-sent events, NDJSON or one JSON array, by <code>Accept</code>: <code>text/event-stream</code>, \
<code>application/x-ndjson</code>, <code>application/json</code>.</li>\
<li><code>RateLimit</code> and <code>RateLimit-Policy</code> say what you have left; a 429 has <code>Retry-After</code>.</li>\
<li>Every answer has <code>X-Request-Id</code>; send one, and it is kept. Errors are <a href=\"/docs/errors\">problems</a>.</li>\
</ul></details>\n";

impl Operation<'_> {
    fn render(&self, openapi: &Value, base: &str, content: &mut String) {
        let id = self.value["operationId"].as_str().unwrap_or(self.path);
        let summary = self.value["summary"].as_str().or_else(|| self.value["description"].as_str()).unwrap_or_default();
        let _ = writeln!(
            content,
            "<details class=\"operation\" id=\"{}\"><summary><span class=\"method {method}\">{upper}</span> <code>{}</code> <span \
             class=\"summary\">{}</span></summary>",
            anchor(id),
            Escaped(self.path),
            inline(summary),
            method = self.method,
            upper = self.method.to_ascii_uppercase(),
        );
        let description = self.value["description"].as_str().unwrap_or_default();
        for paragraph in description.split("\n\n").filter(|paragraph| paragraph.trim_end_matches('.') != summary) {
            let _ = writeln!(content, "<p>{}</p>", inline(paragraph));
        }
        self.render_access(content);
        self.render_parameters(content);
        if let Some(body) = self.value["requestBody"]["content"].as_object() {
            content.push_str("<h4>Body</h4>\n");
            media(body, content);
        }
        content.push_str("<h4>Answers</h4>\n<ul>\n");
        for (status, answer) in self.value["responses"].as_object().into_iter().flatten() {
            let description = inline(answer["description"].as_str().unwrap_or_default());
            let _ = write!(content, "<li><code>{}</code> {description}", Escaped(status));
            // That errors are problems is said once, above.
            if let Some(body) = answer["content"].as_object().filter(|_| status.starts_with('2')) {
                media(body, content);
            }
            content.push_str("</li>\n");
        }
        let curl = self.curl(openapi, base);
        let _ = writeln!(
            content,
            "</ul>\n<h4>Example</h4>\n<pre tabindex=\"0\"><code>{}</code></pre>\n</details>",
            Escaped(&curl)
        );
    }

    fn needs_token(&self) -> bool {
        let requirements = self.value["security"].as_array();
        requirements.is_some_and(|all| {
            !all.is_empty() && all.iter().all(|one| one.as_object().is_some_and(|one| !one.is_empty()))
        })
    }

    fn render_access(&self, content: &mut String) {
        let scopes =
            self.value["security"].as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(Map::values);
        let scopes: Vec<&str> = scopes.filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect();
        let _ = match (self.needs_token(), scopes.as_slice()) {
            (false, _) => writeln!(content, "<p class=\"access\">No token needed.</p>"),
            (true, []) => writeln!(content, "<p class=\"access\">Needs an access token.</p>"),
            (true, scopes) => writeln!(
                content,
                "<p class=\"access\">Needs an access token with <code>{}</code>.</p>",
                Escaped(&scopes.join(" "))
            ),
        };
    }

    fn render_parameters(&self, content: &mut String) {
        let Some(parameters) = self.value["parameters"].as_array().filter(|parameters| !parameters.is_empty()) else {
            return;
        };
        content.push_str("<h4>Parameters</h4>\n<dl>\n");
        for parameter in parameters {
            let _ = writeln!(
                content,
                "<dt><code>{}</code> <small>{}{}, {}</small></dt><dd>{}</dd>",
                Escaped(parameter["name"].as_str().unwrap_or_default()),
                Escaped(parameter["in"].as_str().unwrap_or_default()),
                if parameter["required"] == true { ", required" } else { "" },
                kind(&parameter["schema"]),
                inline(parameter["description"].as_str().unwrap_or_default()),
            );
        }
        content.push_str("</dl>\n");
    }

    fn curl(&self, openapi: &Value, base: &str) -> String {
        let mut curl = "curl".to_owned();
        if !matches!(self.method, "get") {
            let _ = write!(curl, " -X {}", self.method.to_ascii_uppercase());
        }
        // As shell variables: curl would take the braces for a list of addresses.
        let path = self.path.split('{').map(|part| match part.split_once('}') {
            Some((variable, rest)) => format!("${}{rest}", variable.to_ascii_uppercase()),
            None => part.to_owned(),
        });
        let _ = write!(curl, " \"{}{}", base.trim_end_matches('/'), path.collect::<String>());
        let parameters = self.value["parameters"].as_array().into_iter().flatten();
        let needed = parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        for (at, parameter) in needed.enumerate() {
            let _ =
                write!(curl, "{}{}=…", if at == 0 { '?' } else { '&' }, parameter["name"].as_str().unwrap_or_default());
        }
        curl.push('"');
        if self.needs_token() {
            curl.push_str(" \\\n  -H \"Authorization: Bearer $TOKEN\"");
        }
        let content = &self.value["requestBody"]["content"];
        if let Some(schema) = content.get("application/json").and_then(|media| media.get("schema")) {
            let _ = write!(curl, " \\\n  --json '{}'", example(openapi, schema, EXAMPLE_DEPTH));
        } else if let Some((media_type, _)) = content.as_object().and_then(|content| content.iter().next()) {
            let _ = write!(curl, " \\\n  -H 'Content-Type: {media_type}' --data-binary @FILE");
        }
        curl
    }
}

/// The media types of a body, each with its schema.
fn media(body: &Map<String, Value>, content: &mut String) {
    content.push_str("<ul>");
    for (media_type, value) in body {
        let _ = write!(content, "<li><code>{}</code>: {}</li>", Escaped(media_type), kind(&value["schema"]));
    }
    content.push_str("</ul>");
}

/// A schema in a word, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("<a href=\"#schema-{}\">{}</a>", anchor(name), Escaped(name));
    }
    if schema["type"] == "array" {
        return format!("list of {}", kind(&schema["items"]));
    }
    if let Some(variants) = ["allOf", "oneOf", "anyOf"].iter().find_map(|key| schema[*key].as_array()) {
        return variants.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    let values: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut kind = Escaped(&name).to_string();
    for word in [schema["format"].as_str().unwrap_or_default(), &values.join(" | ")] {
        if !word.is_empty() {
            let _ = write!(kind, ", {}", Escaped(word));
        }
    }
    kind
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

fn describe(schema: &Value, content: &mut String) {
    if let Some(description) = schema["description"].as_str() {
        let _ = writeln!(content, "<p>{}</p>", inline(description));
    }
    let Some(properties) = schema["properties"].as_object() else {
        let _ = writeln!(content, "<p>{}</p>", kind(schema));
        return;
    };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    content.push_str("<dl>\n");
    for (name, property) in properties {
        let _ = writeln!(
            content,
            "<dt><code>{}</code> <small>{}{}{}</small></dt><dd>{}</dd>",
            Escaped(name),
            kind(property),
            if required.contains(&name.as_str()) { ", required" } else { "" },
            if property["readOnly"] == true { ", read only" } else { "" },
            inline(property["description"].as_str().unwrap_or_default()),
        );
    }
    content.push_str("</dl>\n");
}

/// A body of the schema's shape: what must be sent, or, where nothing must, all that can.
fn example(openapi: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(name) = reference(schema) {
        return match openapi["components"]["schemas"].get(name) {
            Some(schema) if depth > 0 => example(openapi, schema, depth - 1),
            _ => json!({}),
        };
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    if let Some(first) = ["allOf", "oneOf", "anyOf"].iter().find_map(|key| schema[*key].as_array()?.first()) {
        return example(openapi, first, depth);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array();
            let wanted = |name: &str, property: &Value| {
                property["readOnly"] != true
                    && required.is_none_or(|required| required.iter().any(|required| required == name))
            };
            let properties = schema["properties"].as_object().into_iter().flatten();
            properties
                .filter(|(name, property)| wanted(name, property))
                .map(|(name, property)| (name.clone(), example(openapi, property, depth)))
                .collect::<Map<_, _>>()
                .into()
        }
        Some("array") => json!([]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("…"),
    }
}
