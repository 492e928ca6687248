//! What must hold of the contracts, beyond what the compiler of `.proto` files checks.

use std::collections::HashMap;

use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value};

use super::methods;
use super::options::{self, Read};

/// `guildhall.mesh.v1.Access.User`
const AUTHENTICATED: i32 = 3;
const ROLES: [&str; 4] = ["member", "moderator", "operator", "admin"];

/// What is wrong, each in a sentence that begins with where.
pub(crate) fn faults(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut routes = Routes::default();
    for method in options::methods(pool) {
        let place = methods::path(&method);
        faults.extend(access(&method).into_iter().map(|fault| format!("{place}: {fault}")));
        faults.extend(details(&method).into_iter().map(|fault| format!("{place}: {fault}")));
        for binding in bindings(&method) {
            faults.extend(binding.faults(&method).into_iter().map(|fault| format!("{place}: {fault}")));
            faults.extend(routes.claim(&binding.verb, &binding.path, &place));
        }
    }
    for (service, passthrough) in methods::passthroughs(pool) {
        for verb in passthrough.texts("methods") {
            faults.extend(routes.claim(&verb, &passthrough.text("path"), service.full_name()));
        }
    }
    faults.extend(directions(pool));
    faults
}

fn access(method: &MethodDescriptor) -> Vec<String> {
    let Some(access) = options::message_extension(&method.options(), "guildhall.mesh.v1.access") else {
        return vec!["the RPC has no (guildhall.mesh.v1.access)".to_owned()];
    };
    let mut faults = Vec::new();
    if access.texts("workloads").is_empty() {
        faults.push("access names no workload; nobody could call the RPC".to_owned());
    }
    if access.choice("user") == 0 {
        faults.push("access must say `user`: WORKLOAD_ONLY, ANONYMOUS or AUTHENTICATED".to_owned());
    }
    let role = access.text("role");
    if access.choice("user") != AUTHENTICATED && !(role.is_empty() && access.texts("scopes").is_empty()) {
        faults.push("scopes and a role are a person's: access must say `user: AUTHENTICATED`".to_owned());
    }
    if !role.is_empty() && !ROLES.contains(&role.as_str()) {
        faults.push(format!("access names the role `{role}`, which is none of {}", ROLES.join(", ")));
    }
    faults
}

fn details(method: &MethodDescriptor) -> Vec<String> {
    let mut faults = Vec::new();
    let keys = methods::idempotency_keys(method);
    if keys.len() > 1 {
        faults.push(format!("{} has more than one idempotency_key", method.input().full_name()));
    }
    if keys.iter().any(|key| key.kind() != Kind::String || key.cardinality() == Cardinality::Repeated) {
        faults.push(format!("the idempotency_key of {} must be one string", method.input().full_name()));
    }
    if let Some(http) = options::message_extension(&method.options(), "guildhall.mesh.v1.http") {
        let is_status = |value: &Value| value.as_u32().is_some_and(|status| (100..600).contains(&status));
        if !http.list("statuses").iter().all(is_status) {
            faults.push("(guildhall.mesh.v1.http).statuses holds a number that is no HTTP status".to_owned());
        }
    }
    faults
}

/// Who claimed which normalised route.
#[derive(Default)]
struct Routes(HashMap<String, String>);

impl Routes {
    fn claim(&mut self, verb: &str, path: &str, place: &str) -> Option<String> {
        let route = format!("{verb} {}", normalised(path));
        let other = self.0.insert(route.clone(), place.to_owned())?;
        Some(format!("{place}: the route `{route}` is that of {other} too"))
    }
}

/// The path with each variable replaced by its pattern, so that two that match the same requests are equal.
fn normalised(path: &str) -> String {
    let mut normalised = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').unwrap_or((after, ""));
        normalised.push_str(before);
        normalised.push_str(variable.split_once('=').map_or("*", |(_, pattern)| pattern));
        rest = after;
    }
    normalised + rest
}

/// One `google.api.http` binding.
struct Binding {
    verb: String,
    path: String,
    body: String,
}

fn bindings(method: &MethodDescriptor) -> Vec<Binding> {
    let Some(rule) = options::message_extension(&method.options(), "google.api.http") else { return Vec::new() };
    let more = rule.list("additional_bindings");
    let more = more.iter().filter_map(Value::as_message).map(Binding::read);
    std::iter::once(Binding::read(&rule)).chain(more).collect()
}

impl Binding {
    fn read(rule: &DynamicMessage) -> Self {
        let body = rule.text("body");
        for verb in ["get", "put", "post", "delete", "patch"] {
            if rule.has_field_by_name(verb) {
                return Self { verb: verb.to_uppercase(), path: rule.text(verb), body };
            }
        }
        let custom = rule.value("custom");
        let (verb, path) =
            custom.as_message().map(|custom| (custom.text("kind"), custom.text("path"))).unwrap_or_default();
        Self { verb, path, body }
    }

    fn faults(&self, method: &MethodDescriptor) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.path.starts_with('/') {
            faults.push(format!("the path `{}` must start with `/`", self.path));
        }
        for variable in self.variables() {
            if !names_a_field(&method.input(), variable) {
                faults.push(format!(
                    "the path variable `{variable}` names no plain field of {}",
                    method.input().full_name()
                ));
            }
        }
        if !self.body.is_empty() && self.body != "*" && method.input().get_field_by_name(&self.body).is_none() {
            faults.push(format!("the body `{}` names no field of {}", self.body, method.input().full_name()));
        }
        faults
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        let inside = self.path.split('{').skip(1).map(|part| part.split('}').next().unwrap_or(part));
        inside.map(|variable| variable.split('=').next().unwrap_or(variable))
    }
}

/// Whether the dotted path leads through single messages to a single field that is none.
fn names_a_field(message: &MessageDescriptor, path: &str) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(field) = message.get_field_by_name(first) else { return false };
    match (field.kind(), rest) {
        _ if field.is_list() || field.is_map() => false,
        (Kind::Message(inner), Some(rest)) => names_a_field(&inner, rest),
        (Kind::Message(_), None) | (_, Some(_)) => false,
        (_, None) => true,
    }
}

/// The codec tells requests from answers by their type alone, so no type may be both.
fn directions(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = HashMap::new();
    for method in options::methods(pool) {
        let input = if method.is_client_streaming() { "a part of a stream of requests" } else { "a request" };
        for (message, direction) in [(method.input(), input), (method.output(), "an answer")] {
            let other = *used.entry(message.full_name().to_owned()).or_insert(direction);
            if other != direction {
                let place = methods::path(&method);
                faults.push(format!("{place}: {} is {direction} here and {other} elsewhere", message.full_name()));
            }
        }
    }
    faults
}
