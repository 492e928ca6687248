use std::io::ErrorKind;

use chassis::Error;
use contracts::auth::v1::TokenRevoked;
use ids::UserId;
use status::{Problem, Reason};
use testkit::{Mesh, TokenSpec, server_settings};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::fixture::{FINE, Fake, PANIC, WAIT, ask, client, soon};

#[tokio::test(flavor = "multi_thread")]
async fn readyz_lists_the_gates_that_are_not_ready_and_health_says_the_same() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let builder = fake.builder(&mesh, server_settings()).await;
    let gate = builder.gate("index");
    let bound = builder.bind().await.unwrap();
    gate.ready();
    let service = mesh.serve(bound).await;
    assert_eq!(service.admin("/healthz").await, (200, "ok\n".to_owned()));
    let mut health = HealthClient::new(mesh.channel("content", "auth").await);
    for name in ["", "guildhall.auth.v1.ProfileService"] {
        let answer = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap();
        assert_eq!(answer.get_ref().status(), ServingStatus::Serving, "{name}");
    }

    gate.unready("rebuilding");
    let (status, body) = service.admin("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, r#"{"ready":false,"unready":{"index":"rebuilding"}}"#);
    let mut changes = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    soon("NOT_SERVING", async {
        while changes.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    })
    .await;
    assert_eq!(service.admin("/healthz").await.0, 200, "unready is not dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_listened_to_before_the_process_has_been_ready() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let builder = fake.builder(&mesh, server_settings()).await;
    let gate = builder.gate("index");
    let bound = builder.bind().await.unwrap();
    let address = bound.address();
    let early = async {
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        gate.ready();
    };
    let (service, ()) = tokio::join!(mesh.serve(bound), early);
    TcpStream::connect(address).await.expect("whoever is ready listens");
    gate.unready("rebuilding");
    TcpStream::connect(address).await.expect("whoever has been ready goes on");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_becomes_ready_ends_in_order_too() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let builder = fake.builder(&mesh, server_settings()).await;
    let _never = builder.gate("index");
    let bound = builder.bind().await.unwrap();
    let drain = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(drain.clone()));
    tokio::task::yield_now().await;
    drain.cancel();
    soon("the end", serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_is_internal_tells_nothing_and_the_next_call_works() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let _service = mesh.serve(fake.builder(&mesh, server_settings()).await.bind().await.unwrap()).await;
    let mut client = client(&mesh).await;
    let refused = client.batch_get_profiles(ask(PANIC)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(Problem::from(&refused).reason(), Reason::Internal);
    assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    client.batch_get_profiles(ask(FINE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_above_the_limit_are_refused_at_once_and_a_place_is_free_again_after_one_ends() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let mut settings = server_settings();
    settings.max_calls = 1;
    let _service = mesh.serve(fake.builder(&mesh, settings).await.bind().await.unwrap()).await;
    let mut client = client(&mesh).await;
    let inside = tokio::spawn({
        let mut client = client.clone();
        async move { client.batch_get_profiles(ask(WAIT)).await }
    });
    soon("the first call", fake.entered()).await;
    let refused = client.batch_get_profiles(ask(FINE)).await.unwrap_err();
    assert_eq!(Problem::from(&refused).reason(), Reason::Unavailable);
    assert!(Problem::from(&refused).retry_delay().is_some());
    fake.release();
    inside.await.unwrap().unwrap();
    client.batch_get_profiles(ask(FINE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_task_that_ends_or_panics_fails_the_service() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let die = std::sync::Arc::new(tokio::sync::Notify::new());
    for panics in [false, true] {
        let died = die.clone();
        let builder = fake.builder(&mesh, server_settings()).await.task("relay", move |_| async move {
            died.notified().await;
            assert!(!panics, "a bug");
        });
        let service = mesh.serve(builder.bind().await.unwrap()).await;
        die.notify_one();
        let error = soon("the end", service.ended()).await.unwrap_err();
        assert!(matches!(error, Error::Task(_)), "{error:?}");
        assert!(error.to_string().contains("`relay`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_knows_the_services_of_this_server_with_their_options_and_no_others() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let _service = mesh.serve(fake.builder(&mesh, server_settings()).await.bind().await.unwrap()).await;
    let mut client = ServerReflectionClient::new(mesh.channel("operator", "auth").await);
    let mut ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        answers.message().await.map(|answer| answer.unwrap().message_response.unwrap())
    };

    let Ok(MessageResponse::ListServicesResponse(list)) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let expected = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "guildhall.auth.v1.ProfileService"];
    assert_eq!(names, expected);

    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    let Ok(MessageResponse::FileDescriptorResponse(file)) = ask(symbol("guildhall.auth.v1.ProfileService")).await
    else {
        panic!("no descriptor");
    };
    // `workloads: "content"` is in the access option of its one method.
    assert!(file.file_descriptor_proto[0].windows(7).any(|bytes| bytes == b"content"));
    assert_eq!(ask(symbol("guildhall.content.v1.PostService")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_known_to_every_verifier_and_to_one_that_starts_later() {
    let mesh = Mesh::start().await;
    let auth = mesh.serve_auth().await;
    let session = mesh.source().id();
    let spec = TokenSpec { session: Some(session), ..TokenSpec::member(mesh.source().id::<UserId>()) };
    let token = mesh.token(&spec);
    let verify = |verifier: mesh::token::Verifier| {
        let token = token.clone();
        async move { verifier.verify(&token).await.map_err(|problem| problem.reason()) }
    };
    let serve = async |verifier: &mesh::token::Verifier| {
        let platform = mesh.platform("content").await;
        let builder = chassis::Builder::new("content", server_settings(), &platform).verifier(verifier.clone());
        mesh.serve(builder.bind().await.unwrap()).await
    };

    let early = mesh.verifier();
    let _early = serve(&early).await;
    assert!(verify(early.clone()).await.is_ok());
    let revoked = TokenRevoked {
        user_id: spec.user.to_string(),
        session_id: session.to_string(),
        revoke_time: Some(mesh.source().now().into()),
    };
    auth.publish(1, &revoked).await;
    soon("the revocation", async {
        while verify(early.clone()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(verify(early).await.unwrap_err(), Reason::TokenRevoked);

    let late = mesh.verifier();
    let _late = serve(&late).await;
    assert_eq!(verify(late).await.unwrap_err(), Reason::TokenRevoked, "the replay is part of readiness");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_carry_the_service_the_method_and_the_code() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let service = mesh.serve(fake.builder(&mesh, server_settings()).await.bind().await.unwrap()).await;
    client(&mesh).await.batch_get_profiles(ask(FINE)).await.unwrap();
    let count = r#"guildhall_rpc_server_seconds_count{service="auth",method="/guildhall.auth.v1.ProfileService/BatchGetProfiles",code="OK"}"#;
    soon("the metric", async {
        while !service.admin("/metrics").await.1.contains(count) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
