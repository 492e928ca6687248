//! The transcoder through its public surface, on descriptors compiled for it and on the platform's own.

mod annotations;
mod openapi;
mod paths;
mod requests;
mod responses;
mod streams;
mod wellformed;

use std::sync::LazyLock;

use edge_gateway::transcode::{Match, Routed, Table};
use http::{HeaderMap, HeaderName, Method};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use status::{Problem, Reason};

/// The pool of one file in `proto/`, with comments.
fn pool(file: &str) -> DescriptorPool {
    // Asked when it runs: a target directory may serve several checkouts.
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let includes =
        [format!("{root}/tests/transcode/proto"), format!("{root}/../proto"), format!("{root}/../third_party/proto")];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file(file).unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

static KITCHEN: LazyLock<Table> = LazyLock::new(|| Table::from_pool(pool("kitchen.proto")).unwrap());

fn message(name: &str) -> MessageDescriptor {
    KITCHEN.pool().get_message_by_name(&format!("kitchen.v1.{name}")).unwrap()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

/// The match of `GET /path`, and its query.
fn find(request: &str) -> (Match, Option<&str>) {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    match KITCHEN.route(&method.parse::<Method>().unwrap(), path) {
        Routed::Found(found) => (found, query),
        Routed::MethodNotAllowed { allow } => panic!("{request}: only {allow:?}"),
        Routed::NotFound => panic!("{request}: not found"),
    }
}

/// What a request is for the service, as canonical JSON written by `prost-reflect`.
fn send(request: &str, lines: &[(&str, &str)], body: &[u8]) -> Result<Value, Problem> {
    let (found, query) = find(request);
    let bytes = found.request(query, &headers(lines), body)?;
    Ok(canonical(&DynamicMessage::decode(found.rpc().input.clone(), bytes).unwrap()))
}

fn canonical(message: &DynamicMessage) -> Value {
    serde_json::to_value(message).unwrap()
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "its calls are `json!`")]
fn arrives(request: &str, body: &str, expected: Value) {
    match send(request, &[], body.as_bytes()) {
        Ok(message) => assert_eq!(message, expected, "{request} {body}"),
        Err(problem) => {
            panic!("{request} {body}: {} {:?} {:?}", problem.text(), problem.reason(), problem.violation_list())
        }
    }
}

/// A request is refused for this reason, at this field; none is named where it is empty.
#[track_caller]
fn refused(request: &str, body: impl AsRef<[u8]>, reason: Reason, field: &str) -> Problem {
    let shown = String::from_utf8_lossy(body.as_ref()).into_owned();
    let problem = match send(request, &[], body.as_ref()) {
        Ok(message) => panic!("{request} {shown:.200} arrives as {message}"),
        Err(problem) => problem,
    };
    let fields: Vec<_> = problem.violation_list().iter().map(|violation| violation.field.as_str()).collect();
    let expected = if field.is_empty() { vec![] } else { vec![field] };
    assert_eq!((problem.reason(), fields), (reason, expected), "{request} {shown:.200}: {}", problem.text());
    let said = format!("{} {:?}", problem.text(), problem.violation_list());
    for internal in ["serde", "prost", "invalid type", "expected ", "i32", "u64", "refused", "DynamicMessage"] {
        assert!(!said.contains(internal), "{said}");
    }
    problem
}
