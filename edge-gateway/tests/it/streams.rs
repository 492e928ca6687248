//! Streams over REST, and calls that are left.

use std::time::Duration;

use contracts::Role;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::TokenSpec;
use tokio::io::AsyncWriteExt;

use crate::{
    harness::{Edge, SOON, refused, user},
    upstream::Export,
};

fn post(id: usize) -> String {
    json!({"sourceId": id.to_string(), "title": "a", "publishTime": "2020-06-10T00:00:00Z"}).to_string()
}

#[tokio::test]
async fn a_server_stream_comes_in_the_form_that_is_accepted() {
    let edge = Edge::start().await;
    let export = async |accept: &str| {
        let request = edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", accept);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"].to_str().expect("ASCII").split(';').next(), Some(accept));
        response.text().await.expect("text")
    };
    assert_eq!(export("application/x-ndjson").await.lines().count(), 2);
    let array: Vec<Value> = serde_json::from_str(&export("application/json").await).expect("a JSON array");
    assert_eq!(array[1]["category"], "Games");
    let events = export("text/event-stream").await;
    assert_eq!(events.lines().filter(|line| line.starts_with("data:")).count(), 2, "{events}");
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_message_has_a_status_and_one_that_fails_later_a_last_frame() {
    let edge = Edge::start().await;
    let export =
        || edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", "application/x-ndjson");
    edge.upstream.export(Export::FailsAtOnce);
    refused(export(), 500, "INTERNAL").await;
    edge.upstream.export(Export::FailsAfterOne);
    let response = export().send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["error"]["reason"], "INTERNAL");
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn a_client_stream_takes_ndjson_and_counts_every_line() {
    let edge = Edge::start().await;
    let lines = (0..500).map(|id| Ok::<_, std::io::Error>(post(id) + "\n"));
    let request = edge.client.post(edge.url("/api/v1/posts:import")).bearer_auth(edge.admin_token());
    let request =
        request.header("content-type", "application/x-ndjson").body(reqwest::Body::wrap_stream(stream::iter(lines)));
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["imported"], 500);
}

#[tokio::test]
async fn a_bad_line_in_a_client_stream_is_a_problem() {
    let edge = Edge::start().await;
    let body = format!("{}\n{{\"title\": 3}}\n{}\n", post(1), post(2));
    let request = edge.client.post(edge.url("/api/v1/posts:import")).bearer_auth(edge.admin_token());
    let response = request.header("content-type", "application/x-ndjson").body(body).send().await.expect("an answer");
    assert_eq!(crate::harness::problem(response).await["status"], 400);
}

#[tokio::test]
async fn a_client_stream_may_be_larger_than_a_body_but_not_than_a_stream() {
    let edge = Edge::with(|config| {
        config.request.body_bytes = 1000;
        config.request.stream_bytes = 20_000;
    })
    .await;
    let import = |posts| {
        let body: String = (0..posts).map(|id| post(id) + "\n").collect();
        let body = reqwest::Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>(body)]));
        let request = edge.client.post(edge.url("/api/v1/posts:import")).bearer_auth(edge.admin_token());
        request.header("content-type", "application/x-ndjson").body(body)
    };
    assert_eq!(import(100).send().await.expect("an answer").status(), StatusCode::OK);
    refused(import(1000), 413, "PAYLOAD_TOO_LARGE").await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() {
    let edge = Edge::start().await;
    let mut stream = tokio::net::TcpStream::connect(edge.service.address()).await.expect("the port is open");
    let body = json!({"title": "hang"}).to_string();
    let head = format!(
        "POST /api/v1/posts HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        edge.token(),
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.expect("sent");
    edge.upstream.running(1).await;
    drop(stream);
    edge.upstream.running(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_it() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let request =
        edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", "text/event-stream");
    let mut events = request.send().await.expect("an answer").bytes_stream();
    events.next().await.expect("a first message").expect("bytes");
    edge.upstream.running(1).await;
    drop(events);
    edge.upstream.running(0).await;
}

#[tokio::test]
async fn a_slow_stream_does_not_stall_its_neighbours_on_one_connection() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let request = client
        .get(edge.url("/api/v1/posts:export"))
        .bearer_auth(edge.admin_token())
        .header("accept", "text/event-stream");
    let mut events = request.send().await.expect("an answer").bytes_stream();
    events.next().await.expect("a first message").expect("bytes");
    for _ in 0..20 {
        assert_eq!(client.get(edge.url("/api/v1/posts")).send().await.expect("an answer").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up_and_its_connection_goes_on() {
    let edge = Edge::with(|config| config.connection.write_stall = Duration::from_millis(300)).await;
    edge.upstream.export(Export::Endless);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let export = client
        .get(edge.url("/api/v1/posts:export"))
        .bearer_auth(edge.admin_token())
        .header("accept", "application/x-ndjson");
    let endless = export.send().await.expect("an answer");
    let large = client.get(edge.url("/api/v1/posts?tag=large")).send().await.expect("an answer");
    edge.upstream.running(1).await;
    edge.upstream.running(0).await;
    assert_eq!(client.get(edge.url("/api/v1/posts")).send().await.expect("an answer").status(), StatusCode::OK);
    endless.bytes().await.expect_err("broken off");
    let _taken_or_not = large.bytes().await;

    let large = client.get(edge.url("/api/v1/posts?tag=large")).send().await.expect("an answer");
    assert!(large.bytes().await.expect("whole").len() > 3_000_000, "whoever takes it gets all of it");
}

#[tokio::test]
async fn the_deadline_of_a_request_reaches_the_service_and_ends_the_call() {
    let edge = Edge::start().await;
    let create = |title: &str| edge.post("/api/v1/posts", &json!({"title": title})).bearer_auth(edge.token());
    refused(create("hang").header("request-timeout", "0.3"), 504, "DEADLINE_EXCEEDED").await;
    assert!(edge.upstream.last().left.expect("a deadline upstream") <= Duration::from_millis(300));
    edge.upstream.running(0).await;

    let left = async |header: Option<&str>| {
        let request = create("a");
        let request = header.into_iter().fold(request, |request, seconds| request.header("request-timeout", seconds));
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
        edge.upstream.last().left.expect("a deadline upstream")
    };
    let seconds = Duration::from_secs;
    assert!((seconds(10)..=seconds(15)).contains(&left(None).await), "the default");
    assert!((seconds(50)..=seconds(60)).contains(&left(Some("86400")).await), "the most");
    for nonsense in ["0", "-1", "soon", "1e3", "NaN", ""] {
        refused(create("a").header("request-timeout", nonsense), 400, "MALFORMED_REQUEST").await;
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_a_last_frame() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let request =
        edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", "application/x-ndjson");
    let response = request.header("request-timeout", "0.5").timeout(SOON).send().await.expect("an answer");
    let text = response.text().await.expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["error"]["reason"], "DEADLINE_EXCEEDED", "{text}");
    edge.upstream.running(0).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let short_lived = TokenSpec { role: Role::Admin, lifetime: Duration::from_secs(2), ..TokenSpec::member(user()) };
    let request = edge.get("/api/v1/posts:export").bearer_auth(edge.mesh.token(&short_lived));
    let response = request.header("accept", "application/x-ndjson").send().await.expect("an answer");
    let text = response.text().await.expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["error"]["reason"], "TOKEN_EXPIRED", "{text}");
}
