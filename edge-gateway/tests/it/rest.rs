//! REST calls to unary RPCs.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Edge, problem, refused, user},
    upstream::POST,
};

#[tokio::test]
async fn json_goes_in_and_comes_out_in_the_name_of_the_user() {
    let edge = Edge::start().await;
    let request = edge.post("/api/v1/posts", &json!({"title": "Hello", "tags": ["a", "b"], "requestId": "r-1"}));
    let response = request.bearer_auth(edge.token()).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let post: Value = response.json().await.expect("JSON");
    assert_eq!((&post["title"], &post["tags"]), (&json!("Hello"), &json!(["a", "b"])));
    assert_eq!(post["authorId"], user().to_string());
}

#[tokio::test]
async fn the_idempotency_key_fills_the_request_id_that_the_body_leaves_open() {
    let edge = Edge::start().await;
    let slug = async |body: Value| {
        let request =
            edge.post("/api/v1/posts", &body).bearer_auth(edge.token()).header("idempotency-key", "from-header");
        let post: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        post["slug"].clone()
    };
    assert_eq!(slug(json!({"title": "a"})).await, "from-header");
    assert_eq!(slug(json!({"title": "a", "requestId": "from-header"})).await, "from-header");
}

#[tokio::test]
async fn idempotency_keys_that_contradict_each_other_or_break_the_contracts_rule_are_refused() {
    let edge = Edge::start().await;
    let create = |keys: &[&str], body: Value| {
        let request = edge.post("/api/v1/posts", &body).bearer_auth(edge.token());
        keys.iter().fold(request, |request, key| request.header("idempotency-key", *key))
    };
    let violation = async |request, reason| refused(request, 400, reason).await["violations"][0].clone();
    let two = violation(create(&["a", "b"], json!({"title": "a"})), "MALFORMED_REQUEST").await;
    assert_eq!(two["field"], "Idempotency-Key");
    let another = violation(create(&["a"], json!({"title": "a", "requestId": "b"})), "INVALID_FIELDS").await;
    assert_eq!(another["field"], "requestId");
    assert!(another["description"].as_str().expect("text").contains("`Idempotency-Key`"), "{another}");
    let long = violation(create(&["k".repeat(101).as_str()], json!({"title": "a"})), "INVALID_FIELDS").await;
    assert_eq!(long, json!({"field": "requestId", "description": "must have at most 100 characters"}));
    assert_eq!(edge.upstream.calls(), 0);
    let most = create(&["k".repeat(100).as_str()], json!({"title": "a"})).send().await.expect("an answer");
    assert_eq!(most.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stale_if_match_is_412_and_a_stale_etag_in_the_body_409() {
    let edge = Edge::start().await;
    let patch = |body: Value| {
        edge.client.patch(edge.url(&format!("/api/v1/posts/{POST}"))).json(&body).bearer_auth(edge.token())
    };
    refused(patch(json!({"title": "x"})).header("if-match", "\"v0\""), 412, "ETAG_MISMATCH").await;
    refused(patch(json!({"title": "x", "etag": "v0"})), 409, "ETAG_MISMATCH").await;
    let fresh = patch(json!({"title": "x"})).header("if-match", "\"v1\"").send().await.expect("an answer");
    assert_eq!(fresh.status(), StatusCode::OK);
    let post: Value = fresh.json().await.expect("JSON");
    assert_eq!(post["tags"], json!(["title"]), "the mask comes from the body's keys");
}

#[tokio::test]
async fn bad_json_is_a_problem_that_names_the_field() {
    let edge = Edge::start().await;
    let send = |body: &'static [u8]| {
        let request = edge.client.post(edge.url("/api/v1/posts")).bearer_auth(edge.token());
        request.header("content-type", "application/json").body(body)
    };
    refused(send(b"{\"title\": "), 400, "MALFORMED_REQUEST").await;
    refused(send(b"{\"title\": \"\xff\"}"), 400, "MALFORMED_REQUEST").await;
    let problem = refused(send(b"{\"titel\": \"x\"}"), 400, "UNKNOWN_FIELD").await;
    assert_eq!(problem["violations"][0]["field"], "titel");
    let problem = refused(send(b"{\"title\": \"\"}"), 400, "INVALID_FIELDS").await;
    assert_eq!(problem["violations"][0]["field"], "title", "found by the service's own validation");
    assert_eq!(edge.upstream.calls(), 0);
}

#[tokio::test]
async fn media_types_that_are_not_json_are_refused_either_way() {
    let edge = Edge::start().await;
    let request = edge.client.post(edge.url("/api/v1/posts")).bearer_auth(edge.token());
    refused(request.header("content-type", "text/plain").body("title"), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    let request = edge.post("/api/v1/posts", &json!({})).bearer_auth(edge.token());
    refused(request.header("content-encoding", "gzip"), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    refused(
        edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", "image/png"),
        406,
        "NOT_ACCEPTABLE",
    )
    .await;
}

#[tokio::test]
async fn an_unknown_address_is_404_and_another_method_405_with_what_is_allowed() {
    let edge = Edge::start().await;
    refused(edge.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND").await;
    let response = edge.client.put(edge.url("/api/v1/posts")).send().await.expect("an answer");
    assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS, POST");
    let problem = problem(response).await;
    assert_eq!((problem["status"].clone(), problem["reason"].clone()), (json!(405), json!("METHOD_NOT_ALLOWED")));
    for (path, allow) in [("/docs", "GET, HEAD, OPTIONS"), ("/oauth2/token", "OPTIONS, POST")] {
        let response = edge.client.delete(edge.url(path)).send().await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &http::HeaderValue::from_static(allow)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn options_says_what_is_allowed_and_head_is_get_without_a_body() {
    let edge = Edge::start().await;
    let options = edge.client.request(Method::OPTIONS, edge.url("/api/v1/posts")).send().await.expect("an answer");
    assert_eq!(options.status(), StatusCode::NO_CONTENT);
    assert_eq!(options.headers()["allow"], "GET, HEAD, OPTIONS, POST");
    let path = format!("/api/v1/posts/{POST}");
    let get = edge.get(&path).send().await.expect("an answer");
    let head = edge.client.head(edge.url(&path)).send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::OK);
    for name in ["etag", "content-type", "cache-control", "content-length"] {
        assert_eq!(head.headers()[name], get.headers()[name], "{name}");
    }
    assert!(head.bytes().await.expect("a body").is_empty());
}

#[tokio::test]
async fn head_has_the_headers_of_get_for_problems_and_compressed_answers_too() {
    let edge = Edge::start().await;
    let h2 = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    for client in [&edge.client, &h2] {
        for (path, coding) in [("/api/v1/nothing", "identity"), ("/api/v1/posts", "gzip"), ("/docs", "br")] {
            let ask = async |method: Method| {
                let request = client.request(method, edge.url(path)).header("x-request-id", "same");
                request.header("accept-encoding", coding).send().await.expect("an answer")
            };
            let (get, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
            assert_eq!(head.status(), get.status(), "{path}");
            for name in ["content-type", "content-length", "content-encoding", "etag", "vary"] {
                assert_eq!(head.headers().get(name), get.headers().get(name), "{name} of {path}");
            }
            assert!(head.bytes().await.expect("no body").is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn an_rpc_for_workloads_alone_has_no_address() {
    let edge = Edge::start().await;
    refused(edge.post("/guildhall.auth.v1.TokenService/Introspect", &json!({"token": "a"})), 404, "ROUTE_NOT_FOUND")
        .await;
}

#[tokio::test]
async fn raw_bodies_come_down_with_their_own_media_type() {
    let edge = Edge::start().await;
    let response = edge.get("/feeds/posts.atom").send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/atom+xml");
    assert_eq!(response.text().await.expect("text"), "<feed/>");
}
