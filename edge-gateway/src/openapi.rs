//! The OpenAPI 3.1 document of a route table: what the gateway serves is what it documents, from the same descriptors.
//!
//! To show another annotation, write it where the operation is written here; another rule of `buf.validate` goes into `schema.rs`.

mod comment;
mod schema;

use std::collections::{BTreeMap, HashSet};

use http::Method;
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde_json::{Map, Value, json};

use self::{comment::Comments, schema::Schemas};
use crate::transcode::{
    Format, Table, User,
    annotation::behaves,
    binding::{Binding, Payload},
    json::plain,
    query,
    reflect::Body,
    scalar,
    template::{Segment, Template, Variable},
};

/// What the descriptors do not say.
#[derive(Debug, Clone)]
pub struct Info {
    pub title: String,
    pub version: String,
    /// CommonMark.
    pub description: String,
}

/// How deep a query's fields are listed: a message that contains itself has no end.
const QUERY_DEPTH: usize = 3;

/// Renders the document.
pub fn document(table: &Table, info: &Info) -> Value {
    let comments = Comments::of(table.pool());
    let mut schemas = Schemas::new(table.pool(), &comments);
    let mut paths = BTreeMap::<String, Map<String, Value>>::new();
    let mut tags = BTreeMap::<String, String>::new();
    let mut ids = HashSet::new();
    for binding in table.routes() {
        let mut operation = Operation { binding, schemas: &mut schemas, comments: &comments };
        let id = operation.id(&mut ids);
        let rendered = operation.render(&id);
        paths
            .entry(path(&binding.template))
            .or_default()
            .insert(binding.method.as_str().to_ascii_lowercase(), rendered);
        let service = operation.service();
        tags.entry(service.name().to_owned()).or_insert_with(|| comments.of_service(&service));
    }
    let problem = schemas.problem();
    let mut components = schemas.finish();
    components.insert("Problem".to_owned(), problem);
    json!({
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": info.description},
        "tags": tags.iter().map(|(name, description)| json!({"name": name, "description": description})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

struct Operation<'a, 'p> {
    binding: &'a Binding,
    schemas: &'a mut Schemas<'p>,
    comments: &'a Comments,
}

impl Operation<'_, '_> {
    fn service(&self) -> prost_reflect::ServiceDescriptor {
        self.method().parent_service().clone()
    }

    fn method(&self) -> &prost_reflect::MethodDescriptor {
        &self.binding.rpc.descriptor
    }

    fn id(&self, taken: &mut HashSet<String>) -> String {
        let name = format!("{}_{}", self.service().name(), self.method().name());
        let full = self.method().full_name().replace('.', "_");
        let numbered = (2..).map(|number| format!("{full}_{number}"));
        let free = [name, full.clone()]
            .into_iter()
            .chain(numbered)
            .find(|id| !taken.contains(id))
            .expect("the numbers do not end");
        taken.insert(free.clone());
        free
    }

    fn render(&mut self, id: &str) -> Value {
        let comment = self.comments.of_method(self.method());
        let mut operation = json!({
            "operationId": id,
            "tags": [self.service().name()],
            "summary": comment::summary(&comment),
            "description": self.description(comment),
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if let Some(security) = self.security() {
            operation["security"] = security;
        }
        if let Some(body) = self.request_body() {
            operation["requestBody"] = body;
        }
        if self.binding.rpc.deprecated {
            operation["deprecated"] = true.into();
        }
        operation
    }

    fn description(&self, mut text: String) -> String {
        let mut say = |sentence: String| {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&sentence);
        };
        if let Some(access) = &self.binding.rpc.access {
            if !access.scopes.is_empty() {
                say(format!("Scope: `{}`.", access.scopes.join("`, `")));
            }
            if let Some(role) = &access.role {
                say(format!("Role: `{role}` or higher."));
            }
            if let Some(rule) = &access.resource_rule {
                say(format!("Decided for each resource by the rule `{rule}`."));
            }
        }
        text
    }

    fn security(&self) -> Option<Value> {
        let access = self.binding.rpc.access.as_ref()?;
        Some(match access.user {
            User::WorkloadOnly => json!([]),
            User::Anonymous => json!([{}, {"bearer": []}]),
            User::Authenticated => json!([{"bearer": access.scopes}]),
        })
    }

    fn parameters(&mut self) -> Vec<Value> {
        let mut parameters = self.path_parameters();
        if self.binding.body != Body::Whole {
            let bound: Vec<_> = self.binding.template.variables.iter().map(|variable| variable.field.clone()).collect();
            self.query_parameters(&self.binding.rpc.input.clone(), &mut Vec::new(), &bound, &mut parameters);
        }
        let mut header = |name: &str, description: &str, schema: Value| {
            parameters.push(json!({"name": name, "in": "header", "description": description, "schema": schema}));
        };
        if self.binding.if_match && self.binding.method != Method::GET {
            header("If-Match", "The entity tag that the resource must still have; otherwise 412.", text());
        }
        if let Some(key) = self.binding.rpc.idempotency_key.as_ref().filter(|_| !self.binding.rpc.client_streaming) {
            header(
                "Idempotency-Key",
                "The same key with the same request gets the first answer again; with another request 409.",
                self.schemas.field(key),
            );
        }
        for name in &self.binding.rpc.http.request_headers {
            // OpenAPI ignores these three as parameters, and nobody sets the fourth by hand.
            if !["accept", "content-type", "authorization", "user-agent"].contains(&name.as_str()) {
                header(name.as_str(), "Handed to the service.", text());
            }
        }
        parameters
    }

    fn path_parameters(&mut self) -> Vec<Value> {
        let template = &self.binding.template;
        let mut parameters = Vec::new();
        for (index, segment) in
            template.segments.iter().enumerate().filter(|(_, segment)| !matches!(segment, Segment::Literal(_)))
        {
            let variable = innermost(template, index);
            let field = variable.and_then(|variable| query::resolve(&self.binding.rpc.input, &variable.field)?.pop());
            let whole = variable.filter(|variable| variable.segments.len() == 1 && *segment == Segment::One);
            let mut parameter = json!({"name": name(template, index), "in": "path", "required": true});
            parameter["schema"] = match (whole, &field) {
                (Some(_), Some(field)) => self.schemas.field(field),
                _ => text(),
            };
            let comment = field.map(|field| self.comments.of_field(&field)).unwrap_or_default();
            let several = if *segment == Segment::Rest { "Any number of segments, slashes included." } else { "" };
            let text =
                [comment.as_str(), several].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
            if !text.is_empty() {
                parameter["description"] = text.into();
            }
            parameters.push(parameter);
        }
        parameters
    }

    fn query_parameters(
        &mut self,
        message: &MessageDescriptor,
        above: &mut Vec<FieldDescriptor>,
        bound: &[String],
        out: &mut Vec<Value>,
    ) {
        for field in message.fields() {
            above.push(field.clone());
            let names = |name: fn(&FieldDescriptor) -> &str| above.iter().map(name).collect::<Vec<_>>().join(".");
            let (proto, json) = (names(FieldDescriptor::name), names(FieldDescriptor::json_name));
            let in_body = above.len() == 1 && self.binding.body == Body::Field(field.clone());
            if !in_body && !bound.contains(&proto) && !behaves(&field, "OUTPUT_ONLY") {
                match plain(&field) {
                    Some(nested) if above.len() < QUERY_DEPTH => self.query_parameters(&nested, above, bound, out),
                    None if !field.is_map() && scalar::has_text(&field.kind()) => {
                        let mut parameter = json!({"name": json, "in": "query", "schema": self.schemas.field(&field)});
                        let comment = self.comments.of_field(&field);
                        if !comment.is_empty() {
                            parameter["description"] = comment.into();
                        }
                        if above.len() == 1 && behaves(&field, "REQUIRED") {
                            parameter["required"] = true.into();
                        }
                        out.push(parameter);
                    }
                    _ => {}
                }
            }
            above.pop();
        }
    }

    fn request_body(&mut self) -> Option<Value> {
        let rpc = &self.binding.rpc;
        let schema = match (&self.binding.body, self.binding.takes) {
            (Body::Nothing, _) => return None,
            (_, Payload::Raw) => return Some(json!({"required": true, "content": {"*/*": {}}})),
            (Body::Whole, _) if self.binding.template.variables.is_empty() => self.schemas.message(&rpc.input),
            (Body::Whole, _) => {
                let bound = self.binding.template.variables.iter().map(|variable| variable.field.clone()).collect();
                self.schemas.object(&rpc.input, &bound)
            }
            (Body::Field(field), _) => self.schemas.field(field),
        };
        let content =
            if rpc.client_streaming { stream(&[Format::Lines, Format::Array], &schema) } else { single(&schema) };
        let optional = self.binding.body == Body::Whole
            && !rpc.client_streaming
            && !rpc.input.fields().any(|field| behaves(&field, "REQUIRED"));
        Some(json!({"required": !optional, "content": content}))
    }

    fn answer(&mut self) -> Value {
        match &self.binding.response_body {
            Some(field) => self.schemas.field(field),
            None => self.schemas.message(&self.binding.rpc.output),
        }
    }

    fn responses(&mut self) -> Value {
        let rpc = self.binding.rpc.clone();
        let content = match (self.binding.gives, rpc.server_streaming) {
            (Payload::Raw, _) if rpc.http.produces.is_empty() => json!({"*/*": {}}),
            (Payload::Raw, _) => {
                rpc.http.produces.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>().into()
            }
            (_, true) => stream(self.binding.formats(), &self.answer()),
            (_, false) => single(&self.answer()),
        };
        let headers: Map<_, _> =
            rpc.http.response_headers.iter().map(|name| (name.to_string(), json!({"schema": text()}))).collect();
        let mut responses = Map::new();
        let mut answer = |status: &str, mut answer: Value| {
            if !headers.is_empty() {
                answer["headers"] = headers.clone().into();
            }
            responses.insert(status.to_owned(), answer);
        };
        answer("200", json!({"description": "Success.", "content": content}));
        for status in &rpc.http.statuses {
            answer(
                status.as_str(),
                json!({"description": format!("{}.", status.canonical_reason().unwrap_or("Declared by the service"))}),
            );
        }
        for (status, description) in self.failures() {
            let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
            responses.insert(status.to_owned(), json!({"description": description, "content": content}));
        }
        responses.into()
    }

    fn failures(&self) -> Vec<(&'static str, &'static str)> {
        let access = self.binding.rpc.access.as_ref();
        let gated = access
            .is_some_and(|access| !access.scopes.is_empty() || access.role.is_some() || access.resource_rule.is_some());
        let mut failures = vec![("400", "The request cannot be read, or some fields are not valid.")];
        if access.is_some_and(|access| access.user != User::WorkloadOnly) {
            failures.push(("401", "The access token is missing, expired, revoked or not valid."));
        }
        if gated {
            failures.push(("403", "A scope, a role or a right to this resource is missing."));
        }
        if self.binding.if_match && self.binding.method != Method::GET {
            failures.push(("412", "The resource has changed since the entity tag of `If-Match`."));
        }
        failures
            .extend([("429", "Too many requests; see `Retry-After`."), ("default", "Anything else that goes wrong.")]);
        failures
    }
}

/// The path as OpenAPI has it: one parameter for each segment that is not a literal.
fn path(template: &Template) -> String {
    let segment = |(index, segment): (usize, &Segment)| match segment {
        Segment::Literal(text) => text.clone(),
        _ => format!("{{{}}}", name(template, index)),
    };
    let segments: Vec<_> = template.segments.iter().enumerate().map(segment).collect();
    let verb = template.verb.as_ref().map_or_else(String::new, |verb| format!(":{verb}"));
    format!("/{}{verb}", segments.join("/"))
}

/// The name of a segment's parameter: its variable's, with a number where the variable has several.
fn name(template: &Template, index: usize) -> String {
    let open = |index: &usize| !matches!(template.segments[*index], Segment::Literal(_));
    match innermost(template, index) {
        Some(variable) if variable.segments.clone().filter(open).count() == 1 => variable.field.clone(),
        Some(variable) => format!("{}_{}", variable.field, index + 1),
        None => format!("segment_{}", index + 1),
    }
}

fn innermost(template: &Template, index: usize) -> Option<&Variable> {
    template
        .variables
        .iter()
        .filter(|variable| variable.segments.contains(&index))
        .min_by_key(|variable| variable.segments.len())
}

/// The schema of any text.
fn text() -> Value {
    json!({"type": "string"})
}

fn single(schema: &Value) -> Value {
    json!({ Format::Json.media_types()[0]: {"schema": schema} })
}

/// A stream's forms. OpenAPI 3.1 has no word for a sequence: the schema of lines and events is that of one message.
fn stream(formats: &[Format], schema: &Value) -> Value {
    let content = |format: &Format| {
        let schema = if *format == Format::Array { json!({"type": "array", "items": schema}) } else { schema.clone() };
        (format.media_types()[0].to_owned(), json!({"schema": schema}))
    };
    formats.iter().map(content).collect::<Map<_, _>>().into()
}
