//! Caching and compression.

use http::{HeaderMap, StatusCode};

use crate::{harness::Edge, upstream::POST};

fn vary(headers: &HeaderMap) -> String {
    headers
        .get_all("vary")
        .iter()
        .map(|value| value.to_str().expect("ASCII").to_lowercase())
        .collect::<Vec<_>>()
        .join(", ")
}

#[tokio::test]
async fn an_answer_is_public_without_a_token_and_private_with_one() {
    let edge = Edge::start().await;
    let path = format!("/api/v1/posts/{POST}");
    let anonymous = edge.get(&path).send().await.expect("an answer");
    assert_eq!(anonymous.headers()["cache-control"], "public, max-age=5");
    assert!(vary(anonymous.headers()).contains("authorization"));
    let own = edge.get(&path).bearer_auth(edge.token()).send().await.expect("an answer");
    assert_eq!(own.headers()["cache-control"], "private, max-age=5");
    let uncached = edge.get("/api/v1/posts:lookUp?slug=a").send().await.expect("an answer");
    assert_eq!(uncached.headers()["cache-control"], "no-store");
    let missing = edge.get("/api/v1/nothing").send().await.expect("an answer");
    assert_eq!(missing.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn a_known_representation_is_304_without_a_body() {
    let edge = Edge::start().await;
    for (path, own) in [(format!("/api/v1/posts/{POST}"), Some("\"v1\"")), ("/api/v1/posts".to_owned(), None)] {
        let first = edge.get(&path).send().await.expect("an answer");
        let tag = first.headers()["etag"].clone();
        assert!(own.is_none_or(|own| tag == own), "the resource's own etag");
        let again = edge.get(&path).header("if-none-match", tag.clone()).send().await.expect("an answer");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()["etag"], tag);
        assert_eq!(again.headers()["cache-control"], "public, max-age=5");
        assert!(again.bytes().await.expect("a body").is_empty());
        let changed = edge.get(&path).header("if-none-match", "\"other\"").send().await.expect("an answer");
        assert_eq!(changed.status(), StatusCode::OK);
    }
    let other = edge.get("/api/v1/posts?tag=x").send().await.expect("an answer");
    let first = edge.get("/api/v1/posts").send().await.expect("an answer");
    assert_ne!(other.headers()["etag"], first.headers()["etag"]);
}

#[tokio::test]
async fn answers_are_compressed_as_accepted_and_their_tags_weakened() {
    let edge = Edge::start().await;
    let path = format!("/api/v1/posts/{POST}");
    for coding in ["br", "gzip", "zstd"] {
        let response = edge.get(&path).header("accept-encoding", coding).send().await.expect("an answer");
        assert_eq!(response.headers()["content-encoding"], coding);
        assert_eq!(response.headers()["etag"], "W/\"v1\"");
        assert!(vary(response.headers()).contains("accept-encoding"));
        assert!(response.bytes().await.expect("a body").len() < 1000);
        let again = edge
            .get(&path)
            .header("accept-encoding", coding)
            .header("if-none-match", "W/\"v1\"")
            .send()
            .await
            .expect("an answer");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
    let plain = edge.get(&path).send().await.expect("an answer");
    assert!(!plain.headers().contains_key("content-encoding"));
}

#[tokio::test]
async fn a_client_that_refuses_plain_bytes_gets_a_coding_it_takes_or_else_plain_bytes() {
    let edge = Edge::start().await;
    let path = format!("/api/v1/posts/{POST}");
    for (accepted, coding) in [
        ("identity;q=0", None),
        ("*;q=0", None),
        ("compress, identity;q=0", None),
        ("identity;q=0, gzip", Some("gzip")),
        ("br;q=0.1, *;q=0", Some("br")),
        ("gzip;q=0", None),
        ("identity;q=1, gzip;q=0.5", None),
    ] {
        let response = edge.get(&path).header("accept-encoding", accepted).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{accepted}");
        let got = response.headers().get("content-encoding").map(|coding| coding.to_str().expect("ASCII"));
        assert_eq!(got, coding, "{accepted}");
    }
}

#[tokio::test]
async fn server_sent_events_are_never_compressed() {
    let edge = Edge::start().await;
    let request = edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token());
    let response = request
        .header("accept", "text/event-stream")
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect("an answer");
    assert!(!response.headers().contains_key("content-encoding"));
}
