//! Every mutation that the edge offers is tried with everything that can be wrong with a request: each gets a 4xx with a
//! reason, and nothing of the inside shows.

use e2e::{Answer, Guildhall, guildhall, raw};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tonic::Code;
use tonic::transport::Endpoint;

/// One operation of the OpenAPI document that takes a JSON object.
struct Mutation {
    method: Method,
    /// With an id that nobody has in place of each variable.
    path: String,
    properties: Map<String, Value>,
}

#[tokio::test]
async fn every_mutation_refuses_what_is_wrong_and_says_why() {
    let guildhall = guildhall!();
    let admin = guildhall.admin().await;
    let mutations = mutations(&guildhall).await;
    assert!(mutations.len() > 20, "the document lists the mutations");
    for mutation in &mutations {
        let send = async |body: Vec<u8>| {
            let call = guildhall.call(mutation.method.clone(), &mutation.path).token(&admin);
            call.body("application/json", body).send().await
        };
        let name = format!("{} {}", mutation.method, mutation.path);
        for (what, body) in malformed() {
            let problem = refused(&name, what, &send(body).await);
            assert_eq!(problem["status"], 400, "{name}: {what}: {problem}");
        }
        let problem = refused(&name, "an unknown field", &send(br#"{"noSuchField": 1}"#.to_vec()).await);
        assert_eq!(problem["reason"], "UNKNOWN_FIELD", "{name}: {problem}");
        assert!(
            problem["violations"][0]["field"].as_str().is_some_and(|field| field.ends_with("noSuchField")),
            "{name}: {problem}"
        );

        for (field, schema) in &mutation.properties {
            let wrong = json!({field: wrong_type(schema)});
            let problem = refused(&name, "a wrong type", &send(wrong.to_string().into_bytes()).await);
            assert!(names(&problem, field), "{name}: a wrong type in {field}: {problem}");
            if let Some(most) = schema["maxLength"].as_u64() {
                let long = "x".repeat(usize::try_from(most).expect("a length") + 1);
                let problem =
                    refused(&name, "over-long text", &send(json!({field: long}).to_string().into_bytes()).await);
                assert!(names(&problem, field), "{name}: over-long {field}: {problem}");
            }
            if schema["type"] == "string" && schema["format"].is_null() && schema["enum"].is_null() {
                let problem = refused(&name, "U+0000", &send(json!({field: "a\u{0}b"}).to_string().into_bytes()).await);
                assert!(names(&problem, field), "{name}: U+0000 in {field}: {problem}");
            }
        }

        let huge = vec![b' '; 40 << 20];
        match guildhall
            .call(mutation.method.clone(), &mutation.path)
            .token(&admin)
            .body("application/json", huge)
            .try_send()
            .await
        {
            Ok(answer) => assert_eq!(refused(&name, "a huge body", &answer)["reason"], "PAYLOAD_TOO_LARGE", "{name}"),
            // The edge may close the connection on what it will not read.
            Err(error) => assert!(error.is_request() || error.is_body(), "{name}: {error}"),
        }
        let form = guildhall
            .call(mutation.method.clone(), &mutation.path)
            .token(&admin)
            .body("text/plain", "a=b")
            .send()
            .await;
        assert_eq!(refused(&name, "a media type", &form)["reason"], "UNSUPPORTED_MEDIA_TYPE", "{name}");
    }
    // Nobody has noticed any of it.
    guildhall.get("/api/v1/posts").send().await.expect_status(200);
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_even_where_none_is_needed() {
    let guildhall = guildhall!();
    let ada = guildhall.member("Ada").await;
    let (head, rest) = ada.token.split_once('.').expect("a JWT");
    let (claims, signature) = rest.split_once('.').expect("a JWT");
    let flipped: String = signature.chars().rev().collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    for token in [
        format!("{head}.{claims}.{flipped}"),
        format!("{none}.{claims}."),
        format!("{head}.{claims}"),
        ada.refresh_token.clone(),
        "x".repeat(9000),
        "not a token".to_owned(),
    ] {
        for path in ["/api/v1/users/me", "/api/v1/posts"] {
            let answer = guildhall.get(path).token(&token).send().await;
            let problem = answer.expect_problem(401, "TOKEN_INVALID");
            assert!(!problem.to_string().contains(&token), "the answer repeats the token");
        }
    }
    guildhall.get("/api/v1/users/me").send().await.expect_problem(401, "TOKEN_MISSING");
}

#[tokio::test]
async fn every_mutation_refuses_forged_and_foreign_tokens() {
    let (guildhall, elsewhere) = (guildhall!(), guildhall!());
    let (ours, foreign) = (guildhall.admin().await, elsewhere.admin().await);
    let (signed, signature) = ours.rsplit_once('.').expect("a JWT");
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    for mutation in mutations(&guildhall).await {
        for token in [&forged, &foreign] {
            let call = guildhall.call(mutation.method.clone(), &mutation.path).token(token).json(&json!({}));
            call.send().await.expect_problem(401, "TOKEN_INVALID");
        }
    }
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
    let violations = problem["violations"].as_array();
    violations.is_some_and(|list| list.iter().any(|one| one["field"].as_str().is_some_and(|at| at.ends_with(field))))
}

fn wrong_type(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string" | "integer" | "number" | "boolean") => json!({"a": 1}),
        Some("array") => json!("text"),
        _ => json!([1]),
    }
}

async fn mutations(guildhall: &Guildhall) -> Vec<Mutation> {
    let document = guildhall.get("/openapi.json").send().await.expect_status(200).json();
    let resolve = |schema: &Value| -> Value {
        match schema["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("references resolve").clone(),
            None => schema.clone(),
        }
    };
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let schema = resolve(schema);
            let Some(properties) = schema["properties"].as_object() else { continue };
            let client_stream = operation["requestBody"]["content"]["application/x-ndjson"].is_object();
            if method == "get" || client_stream {
                continue;
            }
            let properties = properties
                .iter()
                .filter(|(_, schema)| schema["readOnly"] != true)
                .map(|(name, schema)| (name.clone(), resolve(schema)))
                .collect();
            found.push(Mutation {
                method: method.to_uppercase().parse().expect("a method"),
                path: filled(path),
                properties,
            });
        }
    }
    found
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
