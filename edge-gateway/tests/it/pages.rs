//! The edge's own pages.

use serde_json::Value;

use crate::harness::Edge;

#[tokio::test]
async fn the_start_page_leads_on() {
    let edge = Edge::start().await;
    let response = edge.get("/").send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().expect("ASCII").to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let page = response.text().await.expect("text");
    for link in ["/docs", "/openapi.json", "/docs/errors", "/.well-known/oauth-authorization-server"] {
        assert!(page.contains(&format!("href=\"{link}\"")), "{link}");
    }
    assert!(page.contains("curl https://guildhall.test/api/v1/posts"));
    assert!(page.contains("PostService"));
}

#[tokio::test]
async fn the_documentation_lists_every_routed_operation() {
    let edge = Edge::start().await;
    let document: Value = edge.get("/openapi.json").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(document["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    let page = edge.get("/docs").send().await.expect("an answer").text().await.expect("text");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20);
    for path in paths.keys() {
        assert!(page.contains(path.as_str()), "{path}");
    }
    assert!(page.contains("Authorization: Bearer $TOKEN"));
    assert!(
        page.contains("https://guildhall.test/api/v1/posts/$POST_ID"),
        "an example that a shell and curl understand"
    );
    assert!(!page.contains("Introspect"), "not for people");
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_a_page_about_it() {
    let edge = Edge::start().await;
    let problem = crate::harness::refused(edge.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND").await;
    let page = edge.get(problem["type"].as_str().expect("a type")).send().await.expect("an answer");
    assert_eq!(page.status(), 200);
    assert!(page.text().await.expect("text").contains("<h1>ROUTE_NOT_FOUND</h1>"));
    crate::harness::refused(edge.get("/docs/errors/NOTHING"), 404, "ROUTE_NOT_FOUND").await;
}

#[tokio::test]
async fn a_page_that_the_browser_has_is_not_sent_again() {
    let edge = Edge::start().await;
    let first = edge.get("/docs").send().await.expect("an answer");
    let again =
        edge.get("/docs").header("if-none-match", first.headers()["etag"].clone()).send().await.expect("an answer");
    assert_eq!(again.status(), 304);
}
