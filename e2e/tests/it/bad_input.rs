//! Every mutation that the edge offers is tried with everything that can be wrong with a request: each gets a 4xx with a
//! reason, and nothing of the inside shows.

use std::collections::BTreeSet;

use e2e::{Answer, guildhall, raw};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::contract;

#[tokio::test]
async fn every_mutation_refuses_what_is_wrong_and_says_why() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    for mutation in contract::mutations(&guildhall).await {
        let Some(properties) = &mutation.properties else { continue };
        let name = mutation.rpc.path;
        let call = || mutation.call(&guildhall).token(&admin);
        let send = async |body: Vec<u8>| call().body("application/json", body).send().await;
        let send_field = async |field: &str, value: Value| send(json!({field: value}).to_string().into_bytes()).await;
        for (what, body) in malformed() {
            let problem = refused(name, what, &send(body).await);
            assert_eq!(problem["status"], 400, "{name}: {what}: {problem}");
        }
        let problem = refused(name, "an unknown field", &send_field("noSuchField", json!(1)).await);
        assert_eq!(problem["reason"], "UNKNOWN_FIELD", "{name}: {problem}");
        assert!(names(&problem, "noSuchField"), "{name}: {problem}");

        for (field, schema) in properties {
            let problem = refused(name, "a wrong type", &send_field(field, wrong_type(schema)).await);
            assert!(names(&problem, field), "{name}: a wrong type in {field}: {problem}");
            if let Some(most) = schema["maxLength"].as_u64() {
                let long = "x".repeat(usize::try_from(most).expect("a length") + 1);
                let problem = refused(name, "over-long text", &send_field(field, json!(long)).await);
                assert!(names(&problem, field), "{name}: over-long {field}: {problem}");
            }
            if schema["type"] == "string" && schema["format"].is_null() && schema["enum"].is_null() {
                let problem = refused(name, "U+0000", &send_field(field, json!("a\u{0}b")).await);
                assert!(names(&problem, field), "{name}: U+0000 in {field}: {problem}");
            }
        }

        let huge = vec![b' '; 40 << 20];
        match call().body("application/json", huge).try_send().await {
            Ok(answer) => assert_eq!(refused(name, "a huge body", &answer)["reason"], "PAYLOAD_TOO_LARGE", "{name}"),
            // The edge may close the connection on what it will not read.
            Err(error) => assert!(error.is_request() || error.is_body(), "{name}: {error}"),
        }
        let plain = call().body("text/plain", "a=b").send().await;
        assert_eq!(refused(name, "a media type", &plain)["reason"], "UNSUPPORTED_MEDIA_TYPE", "{name}");
    }
    // Nobody has noticed any of it.
    guildhall.get("/api/v1/posts").send().await.expect_status(200);
}

#[tokio::test]
async fn every_mutation_names_the_fields_that_are_missing_and_these_are_documented_as_required() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    let mut named = 0;
    for mutation in contract::mutations(&guildhall).await {
        let (name, required) = (mutation.rpc.path, mutation.required.iter().map(String::as_str));
        if mutation.rpc.client_streaming {
            // It lists the messages that it refuses, and goes on.
            let answer = mutation.empty(&guildhall).token(&admin).send().await.expect_status(200).json();
            let reason = answer["refused"][0]["reason"].as_str().unwrap_or_default();
            for field in required {
                assert!(reason.contains(&format!("{field}: ")), "{name}: without {field}: {answer}");
            }
            continue;
        }
        // Without a body: an empty object is the required resource of a PATCH.
        let answer = mutation.call(&guildhall).token(&admin).send().await.json();
        let violations = answer["violations"].as_array().map(Vec::as_slice).unwrap_or_default();
        let missing: BTreeSet<_> = violations.iter().map(|one| one["field"].as_str().expect("a field")).collect();
        assert_eq!(missing, required.collect(), "{name}: {answer}");
        named += missing.len();
    }
    assert!(named > 20, "only {named} fields are required");
}

#[tokio::test]
async fn page_tokens_that_were_tampered_with_or_belong_elsewhere_are_refused() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    for number in 0..3 {
        guildhall.published(&admin, &format!("Post {number}"), "text").await;
    }
    let page = guildhall.get("/api/v1/posts?pageSize=1").send().await.expect_status(200).json();
    let token = page["nextPageToken"].as_str().expect("there is more");
    guildhall.get(&format!("/api/v1/posts?pageSize=2&pageToken={token}")).send().await.expect_status(200);
    let last = if token.ends_with('A') { "B" } else { "A" };
    let tampered = format!("{}{last}", &token[..token.len() - 1]);
    let first = if token.starts_with('A') { "B" } else { "A" };
    for token in [tampered, format!("{first}{}", &token[1..]), "garbage".to_owned(), format!("{token}{token}")] {
        guildhall
            .get(&format!("/api/v1/posts?pageToken={token}"))
            .send()
            .await
            .expect_problem(400, "PAGE_TOKEN_INVALID");
    }
    guildhall
        .get(&format!("/api/v1/posts?tag=x&pageToken={token}"))
        .send()
        .await
        .expect_problem(400, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_are_an_invalid_argument_for_every_rpc() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    let edge = Endpoint::from_shared(guildhall.dev.http.clone()).expect("an address").connect_lazy();
    let mut wrong = Vec::new();
    for method in contracts::METHODS.iter().filter(|method| method.access.workloads.contains(&"edge-gateway")) {
        let outcome = raw::call(edge.clone(), method.path, Some(&admin), b"\xff\xff\xff\xff").await;
        if raw::code(&outcome) != Code::InvalidArgument {
            wrong.push(format!("{}: {outcome:?}", method.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an unfinished object", b"{".to_vec()),
        ("an array", b"[]".to_vec()),
        ("a number", b"1".to_vec()),
        ("trailing bytes", b"{} {}".to_vec()),
        ("invalid UTF-8", b"{\"title\": \"\xc3\x28\"}".to_vec()),
        ("deep nesting", format!("{{\"title\": {}1{}}}", "[".repeat(500), "]".repeat(500)).into_bytes()),
        ("a key twice", br#"{"etag": "a", "etag": "b"}"#.to_vec()),
        ("a lone surrogate", br#"{"title": "\ud800"}"#.to_vec()),
    ]
}

/// A problem of the 400s with a reason, and no word from inside.
fn refused(name: &str, what: &str, answer: &Answer) -> Value {
    let status = answer.status.as_u16();
    assert!((400..500).contains(&status), "{name}: {what}: {status} {}", answer.text());
    let problem = answer.json();
    assert!(problem["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{name}: {what}: {problem}");
    let text = problem.to_string().to_lowercase();
    for inside in ["panicked", "sqlx", "serde", "prost", "rust", "at line", ".rs:", "thread '"] {
        assert!(!text.contains(inside), "{name}: {what} shows {inside:?}: {problem}");
    }
    problem
}

fn names(problem: &Value, field: &str) -> bool {
    let is_it = |at: &str| at.strip_suffix(field).is_some_and(|above| above.is_empty() || above.ends_with('.'));
    let violations = problem["violations"].as_array();
    violations.is_some_and(|list| list.iter().any(|one| one["field"].as_str().is_some_and(is_it)))
}

fn wrong_type(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string" | "integer" | "number" | "boolean") => json!({"a": 1}),
        Some("array") => json!("text"),
        _ => json!([1]),
    }
}
