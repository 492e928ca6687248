//! What the contract offers, for the tests that try all of it.

use std::collections::BTreeSet;

use contracts::{Idempotency, METHODS, Method};
use e2e::{Call, Guildhall};
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};
use serde_json::{Map, Value, json};

/// Of `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;

/// One operation of the OpenAPI document that changes something.
pub struct Mutation {
    pub rpc: &'static Method,
    method: reqwest::Method,
    /// With an id that nobody has in place of each variable.
    path: String,
    /// Those of its JSON object, by name with their schemas, without read-only ones; none where it takes no body, or a stream.
    pub properties: Option<Map<String, Value>>,
    /// The fields of the request that must be given.
    pub required: Vec<String>,
}

impl Mutation {
    /// The call, without a body.
    pub fn call(&self, guildhall: &Guildhall) -> Call {
        guildhall.call(self.method.clone(), &self.path)
    }

    /// The call with an empty message, in the form in which it takes one.
    pub fn empty(&self, guildhall: &Guildhall) -> Call {
        match &self.properties {
            _ if self.rpc.client_streaming => self.call(guildhall).body("application/x-ndjson", "{}\n"),
            Some(_) => self.call(guildhall).json(&json!({})),
            None => self.call(guildhall),
        }
    }
}

/// Every mutation that the edge offers: the document and the contract name the same.
pub async fn mutations(guildhall: &Guildhall) -> Vec<Mutation> {
    let document = guildhall.get("/openapi.json").send().await.expect_status(200).json();
    let pool = descriptors();
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let rpc = named(operation["operationId"].as_str().expect("an id"));
            if rpc.idempotency == Idempotency::NoSideEffects {
                continue;
            }
            found.push(Mutation {
                rpc,
                method: method.to_uppercase().parse().expect("a method"),
                path: filled(path),
                properties: properties(&document, &operation["requestBody"]["content"]),
                required: required(&pool, rpc),
            });
        }
    }
    let documented: BTreeSet<_> = found.iter().map(|mutation| mutation.rpc.path).collect();
    let declared = declared(|method| {
        method.access.workloads.contains(&"edge-gateway") && method.idempotency != Idempotency::NoSideEffects
    });
    assert_eq!(documented, declared);
    found
}

/// The RPCs whose request carries an etag, its own or that of the resource in it.
pub fn with_etag() -> BTreeSet<&'static str> {
    let pool = descriptors();
    let has_etag = |message: &MessageDescriptor| message.get_field_by_name("etag").is_some();
    declared(|method| {
        let request = request(&pool, method);
        has_etag(&request) || request.fields().any(|field| field.kind().as_message().is_some_and(has_etag))
    })
}

/// The RPCs whose request carries an idempotency key.
pub fn with_idempotency_key() -> BTreeSet<&'static str> {
    declared(|method| method.idempotency_key.is_some())
}

fn declared(which: impl Fn(&Method) -> bool) -> BTreeSet<&'static str> {
    METHODS.iter().filter(|method| which(method)).map(|method| method.path).collect()
}

/// `PostService_CreatePost` is `/guildhall.content.v1.PostService/CreatePost`.
fn named(operation: &str) -> &'static Method {
    let path = format!(".{}", operation.replace('_', "/"));
    METHODS.iter().find(|method| method.path.ends_with(&path)).expect("an operation is named after its RPC")
}

fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("the contract is descriptors")
}

fn request(pool: &DescriptorPool, rpc: &Method) -> MessageDescriptor {
    pool.get_message_by_name(rpc.input).expect("a request is a message of the contract")
}

fn required(pool: &DescriptorPool, rpc: &Method) -> Vec<String> {
    let behaviour = pool.get_extension_by_name("google.api.field_behavior").expect("an annotation of the contract");
    let is_required = |field: &FieldDescriptor| {
        let options = field.options();
        let values = options.get_extension(&behaviour);
        values.as_list().is_some_and(|values| values.contains(&prost_reflect::Value::EnumNumber(REQUIRED)))
    };
    request(pool, rpc).fields().filter(is_required).map(|field| field.json_name().to_owned()).collect()
}

fn properties(document: &Value, content: &Value) -> Option<Map<String, Value>> {
    let resolve = |schema: &Value| -> Value {
        match schema["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("references resolve").clone(),
            None => schema.clone(),
        }
    };
    if content["application/x-ndjson"].is_object() {
        return None;
    }
    let schema = resolve(&content["application/json"]["schema"]);
    let writable = schema["properties"].as_object()?.iter().filter(|(_, schema)| schema["readOnly"] != true);
    Some(writable.map(|(name, schema)| (name.clone(), resolve(schema))).collect())
}

/// A path with something of the right form in place of each variable.
fn filled(path: &str) -> String {
    let mut out = String::new();
    for part in path.split_inclusive(['{', '}']) {
        match part.strip_suffix('}') {
            Some(variable) => {
                out.push_str(if variable.contains("version") { "1" } else { "01890000-0000-7000-8000-000000000000" });
            }
            None => out.push_str(part.trim_end_matches('{')),
        }
    }
    out
}
