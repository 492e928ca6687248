//! gRPC and gRPC-Web through the edge.

use base64::{Engine, prelude::BASE64_STANDARD};
use std::time::Duration;

use bytes::{Buf, Bytes};
use contracts::{
    auth::v1::{
        IntrospectRequest, LoginRequest, account_service_client::AccountServiceClient,
        token_service_client::TokenServiceClient,
    },
    content::v1::{
        CreatePostRequest, ExportPostsRequest, GetPostRequest, ImportPostsRequest, ListPostsRequest, Post,
        post_service_client::PostServiceClient,
    },
};
use futures_util::{StreamExt, stream};
use prost::Message;
use tonic::{Code, Request, transport};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    harness::{Edge, SOON, user},
    upstream::{Export, POST},
};

impl Edge {
    pub async fn grpc(&self) -> transport::Channel {
        let endpoint = transport::Endpoint::from_shared(self.url("")).expect("an address");
        endpoint.connect().await.expect("a connection")
    }
}

fn titled(title: &str) -> CreatePostRequest {
    CreatePostRequest { title: title.to_owned(), ..CreatePostRequest::default() }
}

/// A message with its gRPC prefix.
fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    [&[0][..], &length, &message].concat()
}

#[tokio::test]
async fn a_native_call_goes_through_in_the_name_of_the_user() {
    let edge = Edge::start().await;
    let mut client = PostServiceClient::new(edge.grpc().await);
    let response = client.create_post(edge.mesh.as_user(&edge.token(), titled("Hello"))).await.expect("an answer");
    assert!(response.metadata().contains_key("ratelimit"));
    assert!(response.metadata().contains_key("x-request-id"));
    assert_eq!(response.into_inner().author_id, user().to_string());
    let refused = client.create_post(titled("Hello")).await.expect_err("without a token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let forged = client.create_post(edge.mesh.as_user("a.b.c", titled("Hello"))).await.expect_err("a forged token");
    assert_eq!(forged.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn native_streams_go_through_both_ways() {
    let edge = Edge::start().await;
    let mut client = PostServiceClient::new(edge.grpc().await);
    let time = prost_types::Timestamp::default();
    let post = ImportPostsRequest {
        source_id: "1".into(),
        title: "a".into(),
        publish_time: Some(time),
        ..ImportPostsRequest::default()
    };
    let import = edge.mesh.as_user(&edge.admin_token(), stream::iter([post.clone(), post.clone(), post]));
    assert_eq!(client.import_posts(import).await.expect("an answer").into_inner().imported, 3);
    let export =
        client.export_posts(edge.mesh.as_user(&edge.admin_token(), ExportPostsRequest {})).await.expect("an answer");
    assert_eq!(export.into_inner().filter(|post| std::future::ready(post.is_ok())).count().await, 2);
}

#[tokio::test]
async fn rpcs_for_workloads_alone_and_unknown_ones_are_unimplemented() {
    let edge = Edge::start().await;
    let mut tokens = TokenServiceClient::new(edge.grpc().await);
    let refused = tokens.introspect(IntrospectRequest { token: "a".into() }).await.expect_err("not for people");
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_deadline_of_a_native_call_ends_it_here_and_upstream() {
    let edge = Edge::start().await;
    // Without a gRPC client, whose own timer might be what ends the call.
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let request = client.post(edge.url("/guildhall.content.v1.PostService/CreatePost")).bearer_auth(edge.token());
    let request =
        request.header("content-type", "application/grpc").header("te", "trailers").header("grpc-timeout", "300m");
    let response = request.body(frame(&titled("hang"))).send().await.expect("an answer");
    assert_eq!(response.headers()["grpc-status"], "4");
    assert!(edge.upstream.last().left.expect("a deadline upstream") <= Duration::from_millis(300));
    edge.upstream.running(0).await;
}

#[tokio::test]
async fn headers_of_a_native_call_arrive_where_the_contract_declares_them() {
    let edge = Edge::start().await;
    let mut client = AccountServiceClient::new(edge.grpc().await);
    let mut login = Request::new(LoginRequest { email: "a@example.org".into(), password: "secret".into() });
    for (name, value) in
        [("x-http-user-agent", "forged"), ("x-client-address", "198.51.100.1"), ("x-forwarded-client-cert", "By=x")]
    {
        login.metadata_mut().insert(name, value.parse().expect("ASCII"));
    }
    client.login(login).await.expect_err("refused");
    let seen = edge.upstream.last().headers;
    assert!(seen["x-http-user-agent"].to_str().expect("ASCII").starts_with("tonic/"));
    assert_eq!(seen["x-client-address"], "127.0.0.1");
    assert!(!seen.contains_key("x-forwarded-client-cert"));
}

#[tokio::test]
async fn grpc_web_is_translated() {
    let edge = Edge::start().await;
    let request = edge.client.post(edge.url("/guildhall.content.v1.PostService/GetPost"));
    let response = request
        .header("content-type", "application/grpc-web+proto")
        .body(frame(&GetPostRequest { post_id: POST.to_owned() }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
    let mut body: Bytes = response.bytes().await.expect("a body");
    assert_eq!(body.get_u8(), 0);
    let length = body.get_u32() as usize;
    let post = Post::decode(body.split_to(length)).expect("a post");
    assert_eq!(post.id, POST);
    assert_eq!(body.get_u8(), 0x80, "the trailers' frame");
    assert!(String::from_utf8_lossy(&body[4..]).contains("grpc-status:0"));
}

#[tokio::test]
async fn grpc_web_text_is_base64_both_ways() {
    let edge = Edge::start().await;
    let request = edge.client.post(edge.url("/guildhall.content.v1.PostService/GetPost"));
    let response = request
        .header("content-type", "application/grpc-web-text")
        .header("accept", "application/grpc-web-text")
        .body(BASE64_STANDARD.encode(frame(&GetPostRequest { post_id: POST.to_owned() })))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/grpc-web-text+proto");
    assert_eq!(response.headers().get("grpc-status"), None, "not refused");
    let text = response.text().await.expect("a body");
    let decoded = |characters: usize| BASE64_STANDARD.decode(&text[..characters]).expect("base64");
    let length = (&decoded(8)[1..]).get_u32() as usize;
    // Each frame is padded by itself.
    let message = decoded((5 + length).div_ceil(3) * 4);
    assert_eq!(Post::decode(&message[5..]).expect("a post").id, POST);
}

#[tokio::test]
async fn grpc_web_is_measured_by_its_own_status() {
    let edge = Edge::start().await;
    for text in [false, true] {
        let (media_type, body) = if text {
            ("application/grpc-web-text", BASE64_STANDARD.encode(frame(&ListPostsRequest::default())).into_bytes())
        } else {
            ("application/grpc-web+proto", frame(&ListPostsRequest::default()))
        };
        let request = edge.client.post(edge.url("/guildhall.content.v1.PostService/ListPosts")).body(body);
        let request = request.header("content-type", media_type).header("accept", media_type);
        request.send().await.expect("an answer").bytes().await.expect("a body");
    }
    let count = r#"guildhall_rpc_server_seconds_count{service="edge-gateway",method="/guildhall.content.v1.PostService/ListPosts",code="OK"} 2"#;
    let measured = async {
        while !edge.service.admin("/metrics").await.1.lines().any(|line| line == count) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, measured).await.expect("both calls are OK");
}

#[tokio::test]
async fn grpc_over_http_1_is_refused_with_a_hint() {
    let edge = Edge::start().await;
    let request = edge
        .client
        .post(edge.url("/guildhall.content.v1.PostService/GetPost"))
        .header("content-type", "application/grpc");
    let problem = crate::harness::refused(request, 400, "MALFORMED_REQUEST").await;
    assert!(problem["detail"].as_str().expect("text").contains("gRPC-Web"));
}

#[tokio::test]
async fn health_says_that_the_edge_serves() {
    let edge = Edge::start().await;
    let mut health = HealthClient::new(edge.grpc().await);
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.expect("an answer");
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_lists_and_describes_only_what_can_be_called() {
    let edge = Edge::start().await;
    let mut reflection = ServerReflectionClient::new(edge.grpc().await);
    let ask = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("guildhall.content.v1.PostService".into())),
        ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".into())),
        ask(MessageRequest::FileContainingSymbol("guildhall.auth.v1.TokenService".into())),
        ask(MessageRequest::FileContainingSymbol("guildhall.common.v1.DeadLetterService".into())),
    ];
    let answers = reflection.server_reflection_info(stream::iter(questions)).await.expect("an answer").into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.map(|answer| answer.message_response)).collect().await;
    let Ok(Some(MessageResponse::ListServicesResponse(list))) = &answers[0] else { panic!("{:?}", answers[0]) };
    let services: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for listed in ["guildhall.content.v1.PostService", "guildhall.auth.v1.AccountService", "grpc.health.v1.Health"] {
        assert!(services.contains(&listed), "{listed} in {services:?}");
    }
    for hidden in
        ["guildhall.auth.v1.TokenService", "guildhall.auth.v1.ProfileService", "guildhall.common.v1.DeadLetterService"]
    {
        assert!(!services.contains(&hidden), "{hidden} in {services:?}");
    }
    for answer in &answers[1..3] {
        assert!(matches!(answer, Ok(Some(MessageResponse::FileDescriptorResponse(_)))), "{answer:?}");
    }
    for answer in &answers[3..] {
        assert!(!matches!(answer, Ok(Some(MessageResponse::FileDescriptorResponse(_)))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_drops_a_stream_ends_it_upstream() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let mut client = PostServiceClient::new(edge.grpc().await);
    let export =
        client.export_posts(edge.mesh.as_user(&edge.admin_token(), ExportPostsRequest {})).await.expect("an answer");
    let mut export = export.into_inner();
    export.next().await.expect("a first message").expect("a post");
    edge.upstream.running(1).await;
    drop(export);
    edge.upstream.running(0).await;
}
