use contracts::{
    common::v1::{
        DeadLetterServiceListRequest, DeadLetterServiceListResponse, DeadLetterServiceReplayRequest,
        DeadLetterServiceReplayResponse,
        dead_letter_service_client::DeadLetterServiceClient,
        dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
    },
    content::v1::{
        CreatePostRequest, GetPostRequest, ListTagsRequest, RenameTagRequest, Tag,
        post_service_client::PostServiceClient, post_service_server::PostServiceServer,
        tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
    },
};
use http::StatusCode;
use http_body_util::BodyExt;
use mesh::Channel;
use status::{Problem, Reason};
use tonic::{Request, Response, Status, body::Body};
use tower::ServiceExt;

use crate::{
    services::{PANICS, POST, Posts, Tags},
    world::{Running, World, reason, with_token},
};

async fn content(world: &World) -> Running {
    let (posts, _) = Posts::new();
    let posts = PostServiceServer::new(posts);
    world.serve("content", |server| server.grpc(posts).grpc(TagServiceServer::new(Tags::default()))).await
}

async fn edge(world: &World) -> (Running, Channel) {
    let content = content(world).await;
    let channel = world.channel("edge-gateway", "content", &content).await;
    (content, channel)
}

fn get(id: &str) -> GetPostRequest {
    GetPostRequest { post_id: id.into() }
}

fn rename() -> RenameTagRequest {
    let id = POST.to_owned();
    RenameTagRequest {
        tag_id: id.clone(),
        tag: Some(Tag { id, name: "new".into(), ..Tag::default() }),
        ..RenameTagRequest::default()
    }
}

fn create() -> CreatePostRequest {
    CreatePostRequest { title: "A title".into(), ..CreatePostRequest::default() }
}

#[tokio::test]
async fn an_anonymous_call_needs_no_token_and_a_good_one_names_the_person() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut posts = PostServiceClient::new(channel);
    let post = posts.get_post(get(POST)).await.unwrap().into_inner();
    assert_eq!((post.author_id.as_str(), post.title.as_str()), ("", "edge-gateway"));

    let claims = world.claims();
    let token = crate::world::sign(&crate::world::header(), &claims);
    let post = posts.get_post(with_token(get(POST), &token)).await.unwrap().into_inner();
    assert_eq!(post.author_id, claims.sub);
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut posts = PostServiceClient::new(channel);
    assert_eq!(reason(posts.get_post(with_token(get(POST), "nonsense")).await), Reason::TokenInvalid);

    for header in ["Basic dXNlcjpwdw==", "Bearer", ""] {
        let mut request = Request::new(get(POST));
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        assert_eq!(reason(posts.get_post(request).await), Reason::TokenInvalid, "{header}");
    }
    let token = world.token(|_| {});
    let mut twice = with_token(get(POST), &token);
    twice.metadata_mut().append("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(reason(posts.get_post(twice).await), Reason::TokenInvalid);
}

#[tokio::test]
async fn an_authenticated_call_needs_a_token_and_its_scope() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut posts = PostServiceClient::new(channel);
    assert_eq!(reason(posts.create_post(create()).await), Reason::TokenMissing);

    let other_scope = world.token(|claims| claims.scope = "profile comment.write".into());
    assert_eq!(reason(posts.create_post(with_token(create(), &other_scope)).await), Reason::ScopeMissing);
    let longer_scope = world.token(|claims| claims.scope = "content.write.all".into());
    assert_eq!(reason(posts.create_post(with_token(create(), &longer_scope)).await), Reason::ScopeMissing);

    let unverified = world.token(|claims| {
        claims.scope = "profile".into();
        claims.email_verified = false;
    });
    assert_eq!(reason(posts.create_post(with_token(create(), &unverified)).await), Reason::EmailNotVerified);

    let good = world.token(|_| {});
    assert!(!posts.create_post(with_token(create(), &good)).await.unwrap().into_inner().author_id.is_empty());
}

#[tokio::test]
async fn a_higher_role_includes_the_lower_ones() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut tags = TagServiceClient::new(channel);
    let cases: [(&[&str], Option<Reason>); 7] = [
        (&[], Some(Reason::RoleMissing)),
        (&["member"], Some(Reason::RoleMissing)),
        (&["superuser", "Admin"], Some(Reason::RoleMissing)),
        (&["moderator"], None),
        (&["operator"], None),
        (&["member", "admin"], None),
        (&["admin", "member"], None),
    ];
    for (roles, refused) in cases {
        let token = world.token(|claims| claims.roles = roles.iter().map(ToString::to_string).collect());
        let answer = tags.rename_tag(with_token(rename(), &token)).await;
        assert_eq!(answer.err().map(|status| Problem::from(&status).reason()), refused, "{roles:?}");
    }
}

#[tokio::test]
async fn the_workload_is_judged_before_the_token() {
    let world = World::start().await;
    let content = content(&world).await;
    let token = world.token(|claims| claims.roles = vec!["admin".into()]);
    for workload in ["comment", "operator", "auth", "content"] {
        let mut tags = TagServiceClient::new(world.channel(workload, "content", &content).await);
        assert_eq!(
            reason(tags.rename_tag(with_token(rename(), &token)).await),
            Reason::WorkloadNotAllowed,
            "{workload}"
        );
        assert_eq!(reason(tags.list_tags(ListTagsRequest::default()).await), Reason::WorkloadNotAllowed, "{workload}");
    }
}

#[tokio::test]
async fn the_clients_address_counts_from_the_edge_alone() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut request = Request::new(get(POST));
    request.metadata_mut().insert("x-client-address", "192.0.2.7".parse().unwrap());
    let post = PostServiceClient::new(channel).get_post(request).await.unwrap().into_inner();
    assert_eq!(post.byline, "192.0.2.7");
}

#[tokio::test]
async fn what_every_service_has_answers_to_its_operator() {
    struct Letters;
    #[tonic::async_trait]
    impl DeadLetterService for Letters {
        async fn list(
            &self,
            request: Request<DeadLetterServiceListRequest>,
        ) -> Result<Response<DeadLetterServiceListResponse>, Status> {
            assert!(request.metadata().get("x-client-address").is_none(), "only the edge may say so");
            Ok(Response::new(DeadLetterServiceListResponse::default()))
        }

        async fn replay(
            &self,
            _: Request<DeadLetterServiceReplayRequest>,
        ) -> Result<Response<DeadLetterServiceReplayResponse>, Status> {
            Ok(Response::new(DeadLetterServiceReplayResponse::default()))
        }
    }
    let world = World::start().await;
    let content = world.serve("content", |server| server.grpc(DeadLetterServiceServer::new(Letters))).await;
    let list = async |workload: &str| {
        let mut request = Request::new(DeadLetterServiceListRequest::default());
        request.metadata_mut().insert("x-client-address", "192.0.2.7".parse().unwrap());
        DeadLetterServiceClient::new(world.channel(workload, "content", &content).await).list(request).await
    };
    list("operator").await.unwrap();
    assert_eq!(reason(list("edge-gateway").await), Reason::WorkloadNotAllowed);
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented_and_another_services_methods_are_not_there() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let call = async |path: &'static str, content_type: Option<&'static str>| {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(path);
        if let Some(content_type) = content_type {
            request.headers_mut().insert("content-type", content_type.parse().unwrap());
        }
        channel.clone().oneshot(request).await.unwrap()
    };
    let paths = [
        "/guildhall.content.v1.PostService/DropAllPosts",
        // Another service's, which even this workload may call there.
        "/guildhall.auth.v1.AccountService/GetMe",
        "/guildhall.content.v1.PostService/GetPost/",
        "/guildhall.content.v1.PostService/getPost",
        "/oauth2/jwks",
        "//guildhall.content.v1.PostService/GetPost",
    ];
    for path in paths {
        let answer = call(path, Some("application/grpc")).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{path}");
        assert_eq!(Problem::from(&status).reason(), Reason::RouteNotFound, "{path}");
    }
    let answer = call("/nothing/here", None).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((problem["status"].as_u64(), problem["reason"].as_str()), (Some(404), Some("ROUTE_NOT_FOUND")));
}

#[tokio::test]
async fn health_is_for_every_workload_and_reflection_for_the_edge_and_the_operator() {
    let world = World::start().await;
    let content = content(&world).await;
    let call = async |workload: &str, path: &'static str| {
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let answer = world.channel(workload, "content", &content).await.oneshot(request).await.unwrap();
        Problem::from(&Status::from_header_map(answer.headers()).unwrap()).reason()
    };
    // Neither is registered here: who may pass finds nothing behind.
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(call("comment", "/grpc.health.v1.Health/Check").await, Reason::RouteNotFound);
    assert_eq!(call("comment", reflection).await, Reason::WorkloadNotAllowed);
    assert_eq!(call("edge-gateway", reflection).await, Reason::RouteNotFound);
    assert_eq!(call("operator", reflection).await, Reason::RouteNotFound);
}

#[tokio::test]
async fn paths_that_are_passed_through_have_their_own_workloads_and_methods() {
    let world = World::start().await;
    let router = axum::Router::new()
        .route("/oauth2/jwks", axum::routing::any(|| async { "keys" }))
        .route(
            "/oauth2/token",
            axum::routing::any(|headers: http::HeaderMap| async move {
                headers["authorization"].to_str().unwrap().to_owned()
            }),
        )
        .route("/secret", axum::routing::any(|| async { "not in the contract" }));
    let auth = world.serve("auth", |server| server.http(router)).await;
    let call = async |workload: &str, method: &str, path: &'static str| {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert("authorization", "Basic Y2xpZW50OnB3".parse().unwrap());
        world.channel(workload, "auth", &auth).await.oneshot(request).await.unwrap()
    };
    assert_eq!(call("content", "GET", "/oauth2/jwks").await.status(), StatusCode::OK);
    assert_eq!(call("content", "HEAD", "/oauth2/jwks").await.status(), StatusCode::OK);
    assert_eq!(call("content", "POST", "/oauth2/jwks").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(call("edge-gateway", "HEAD", "/oauth2/token").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(call("content", "POST", "/oauth2/token").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(call("edge-gateway", "GET", "/secret").await.status(), StatusCode::NOT_FOUND);
    let answer = call("edge-gateway", "POST", "/oauth2/token").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "Basic Y2xpZW50OnB3");
}

#[tokio::test]
async fn a_body_that_is_no_grpc_message_is_the_callers_fault() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let call = async |body: &'static [u8], encoding: &str| {
        let mut request = http::Request::new(Body::new(http_body_util::Full::from(body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/guildhall.content.v1.PostService/GetPost");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let answer = channel.clone().oneshot(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        (status.code(), Problem::from(&status).reason())
    };
    let malformed = (tonic::Code::InvalidArgument, Reason::MalformedRequest);
    for body in [&b""[..], b"zzz", b"\0\0\0", b"\0\0\0\0\x05ab", b"\x01\0\0\0\0", b"\x02\0\0\0\0"] {
        assert_eq!(call(body, "identity").await, malformed, "{body:?}");
    }
    let too_large = (tonic::Code::ResourceExhausted, Reason::PayloadTooLarge);
    assert_eq!(call(b"\0\xff\xff\xff\xff", "identity").await, too_large);
    assert_eq!(call(b"\0\0\x40\0\x01", "identity").await, too_large);
    assert_eq!(call(b"\0\0\0\0\0", "identity").await.1, Reason::InvalidFields, "an empty message is one");
    assert_eq!(call(b"\x01\0\0\0\0", "gzip").await.0, tonic::Code::Unimplemented, "compression is tonic's affair");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_tells_nothing_and_the_connection_lives_on() {
    let world = World::start().await;
    let (_content, channel) = edge(&world).await;
    let mut posts = PostServiceClient::new(channel);
    let status = posts.get_post(get(PANICS)).await.unwrap_err();
    assert_eq!(Problem::from(&status).reason(), Reason::Internal);
    assert!(!status.message().contains("panic") && !status.message().contains("test"), "{}", status.message());
    posts.get_post(get(POST)).await.unwrap();
}
