//! What crosses the edge, and what browsers are told.

use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Edge, problem};

#[tokio::test]
async fn statuses_and_headers_of_a_service_pass_where_they_are_declared_and_only_there() {
    let edge = Edge::start().await;
    let moved = edge.get("/api/v1/posts:lookUp?slug=old").send().await.expect("an answer");
    assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers()["location"], "/api/v1/posts/1");
    let odd = edge.get("/api/v1/posts:lookUp?path=a").send().await.expect("an answer");
    assert_eq!(odd.status(), StatusCode::OK, "503 is not declared");
    for name in ["set-cookie", "x-internal", "x-http-code", "x-http-location", "x-http-set-cookie"] {
        assert!(!odd.headers().contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn headers_of_a_request_reach_a_service_where_they_are_declared_and_only_there() {
    let edge = Edge::start().await;
    let login = edge.post("/api/v1/auth/login", &json!({"email": "a@example.org", "password": "a password"}));
    let login = login.header("user-agent", "browser/1").header("x-http-user-agent", "forged").header("cookie", "a=b");
    let login = login
        .header("x-http-code", "200")
        .header("x-forwarded-client-cert", "By=x")
        .header("x-client-address", "198.51.100.1");
    assert_eq!(problem(login.send().await.expect("an answer")).await["reason"], "CREDENTIALS_INVALID");
    let seen = edge.upstream.last().headers;
    assert_eq!(seen.get_all("x-http-user-agent").iter().collect::<Vec<_>>(), ["browser/1"]);
    assert_eq!(seen["x-client-address"], "127.0.0.1");
    for name in ["x-http-code", "x-forwarded-client-cert", "cookie"] {
        assert!(!seen.contains_key(name), "{name}");
    }
    edge.get("/api/v1/posts").header("user-agent", "browser/1").send().await.expect("an answer");
    assert!(!edge.upstream.last().headers.contains_key("x-http-user-agent"), "not declared there");
}

#[tokio::test]
async fn a_declared_path_is_passed_through_unread() {
    let edge = Edge::start().await;
    let keys = edge.get("/oauth2/jwks").send().await.expect("an answer");
    assert_eq!(keys.headers()["content-type"], "application/jwk-set+json");
    let token = edge.client.post(edge.url("/oauth2/token?a=b")).basic_auth("client", Some("secret"));
    let token = token
        .header("x-forwarded-client-cert", "By=x")
        .header("x-http-a", "b")
        .header("connection", "x-gone")
        .header("x-gone", "1");
    let response = token
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=odd")
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    for name in ["x-http-code", "x-hop", "connection"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let seen = edge.upstream.last();
    assert_eq!(seen.body, "grant_type=odd");
    assert!(seen.headers["authorization"].to_str().expect("ASCII").starts_with("Basic "));
    assert_eq!(seen.headers["x-client-address"], "127.0.0.1");
    for name in ["x-forwarded-client-cert", "x-http-a", "x-gone"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    for path in ["/oauth2/tokens", "/oauth2/token/", "/oauth2/introspect"] {
        assert_eq!(
            edge.client.post(edge.url(path)).send().await.expect("an answer").status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_passed_through_body_is_limited() {
    let edge = Edge::with(|config| config.request.body_bytes = 100).await;
    let body = |stream: bool| {
        let bytes = vec![b'a'; 5000];
        let body = if stream {
            reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)]))
        } else {
            bytes.into()
        };
        edge.client.post(edge.url("/oauth2/token")).body(body)
    };
    for stream in [false, true] {
        crate::harness::refused(body(stream), 413, "PAYLOAD_TOO_LARGE").await;
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_handed_on() {
    let edge = Edge::start().await;
    let response = edge.get("/api/v1/posts").header("x-request-id", "order-7").send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "order-7");
    assert_eq!(edge.upstream.last().headers["x-request-id"], "order-7");
    let made = edge.get("/api/v1/posts").header("x-request-id", "two words").send().await.expect("an answer");
    assert_eq!(made.headers()["x-request-id"].len(), 32);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let edge = Edge::start().await;
    for path in ["/api/v1/posts", "/api/v1/nothing", "/", "/oauth2/jwks"] {
        let response = edge.get(path).send().await.expect("an answer");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(response.headers()[name], value, "{path}");
        }
        assert!(
            response.headers()["content-security-policy"].to_str().expect("ASCII").starts_with("default-src 'none'"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_others_may_not() {
    let edge = Edge::with(|config| config.cors.origins = vec!["https://play.example.org".to_owned()]).await;
    let preflight = async |origin: &str| {
        let request = edge.client.request(Method::OPTIONS, edge.url("/api/v1/posts")).header("origin", origin);
        let request = request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        request.send().await.expect("an answer").headers().clone()
    };
    let allowed = preflight("https://play.example.org").await;
    assert_eq!(allowed["access-control-allow-origin"], "https://play.example.org");
    assert_eq!(allowed["access-control-allow-headers"], "authorization");
    assert_eq!(allowed["access-control-max-age"], "7200");
    assert!(allowed["access-control-allow-methods"].to_str().expect("ASCII").contains("PATCH"));
    for stranger in ["https://example.org", "http://localhost:5173", "null"] {
        assert!(!preflight(stranger).await.contains_key("access-control-allow-origin"), "{stranger}");
    }
    let refused =
        edge.get("/api/v1/nothing").header("origin", "https://play.example.org").send().await.expect("an answer");
    assert_eq!(
        refused.headers()["access-control-allow-origin"],
        "https://play.example.org",
        "problems can be read too"
    );
    assert!(!refused.headers().contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn pages_on_this_machine_may_call_where_that_is_set() {
    let edge = Edge::with(|config| config.cors.loopback = true).await;
    let response = edge.get("/api/v1/posts").header("origin", "http://localhost:5173").send().await.expect("an answer");
    assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:5173");
}
