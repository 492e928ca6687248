//! What goes wrong behind the edge, and what of it a client sees.

use contracts::content::v1::{CreatePostRequest, post_service_client::PostServiceClient};
use serde_json::json;
use tonic::Code;

use crate::harness::{Edge, refused};

async fn fails(title: &str, status: u16, reason: &str) {
    let edge = Edge::start().await;
    let request = edge.post("/api/v1/posts", &json!({"title": title})).bearer_auth(edge.token());
    let problem = refused(request, status, reason).await;
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
    let mut client = PostServiceClient::new(edge.grpc().await);
    let call =
        edge.mesh.as_user(&edge.token(), CreatePostRequest { title: title.to_owned(), ..CreatePostRequest::default() });
    let refusal = client.create_post(call).await.expect_err("refused");
    assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
}

#[tokio::test]
async fn a_reason_of_the_service_reaches_the_client() {
    fails("taken", 409, "SLUG_TAKEN").await;
}

#[tokio::test]
async fn the_cause_of_an_internal_error_stays_inside() {
    fails("internal", 500, "INTERNAL").await;
}

#[tokio::test]
async fn the_text_of_an_internal_error_from_elsewhere_stays_inside() {
    fails("foreign internal", 500, "INTERNAL").await;
}

#[tokio::test]
async fn the_text_of_an_unknown_error_stays_inside() {
    fails("unknown code", 500, "INTERNAL").await;
}

#[tokio::test]
async fn an_unknown_detail_does_not_turn_a_status_into_an_internal_error() {
    fails("unknown detail", 404, "NOT_FOUND").await;
}

#[tokio::test]
async fn a_service_that_is_gone_is_503_with_a_time_to_come_again() {
    let edge = Edge::start().await;
    let Edge { mesh, service, upstream, client } = edge;
    upstream.content.stop().await.expect("it ends");
    let response = client.get(format!("http://{}/api/v1/posts", service.address())).send().await.expect("an answer");
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(crate::harness::problem(response).await["reason"], "UNAVAILABLE");
    drop(mesh);
}

#[tokio::test]
async fn a_grpc_status_keeps_its_code_and_reason() {
    let edge = Edge::start().await;
    let mut client = PostServiceClient::new(edge.grpc().await);
    let call = edge
        .mesh
        .as_user(&edge.token(), CreatePostRequest { title: "taken".to_owned(), ..CreatePostRequest::default() });
    let status = client.create_post(call).await.expect_err("refused");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status::Problem::from(&status).reason(), status::Reason::SlugTaken);
}
