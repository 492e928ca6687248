//! Who is let in: the expected answers are written by hand, not read from the contract.

use contracts::auth::v1::{
    BatchGetProfilesRequest, GetMeRequest, GetSettingsRequest, GetUserRequest, ListSessionsRequest, ListUsersRequest,
    account_service_client::AccountServiceClient, profile_service_client::ProfileServiceClient,
};
use http_body_util::{BodyExt, Full};
use status::Reason;
use tonic::Code;
use tower::ServiceExt;

use crate::{
    on_both,
    world::{World, assert_refused, refusal},
};

on_both! {
    async fn only_the_edge_reaches_accounts_and_only_content_profiles(backend: Backend) {
        let world = World::start(backend).await;
        for workload in ["content", "operator", "stranger"] {
            let mut accounts = AccountServiceClient::new(world.mesh.channel(workload, "auth").await);
            let outcome = accounts.get_user(GetUserRequest { user_id: "x".into() }).await;
            assert_refused(outcome, Reason::WorkloadNotAllowed);
        }
        for workload in ["edge-gateway", "stranger"] {
            let mut profiles = ProfileServiceClient::new(world.mesh.channel(workload, "auth").await);
            let outcome = profiles.batch_get_profiles(BatchGetProfilesRequest { user_ids: vec!["x".into()] }).await;
            assert_refused(outcome, Reason::WorkloadNotAllowed);
        }
    }

    async fn without_a_token_or_a_role_nothing_of_a_person_is_told(backend: Backend) {
        let world = World::start(backend).await;
        assert_refused(world.accounts().get_me(GetMeRequest {}).await, Reason::TokenMissing);
        assert_refused(world.accounts().get_settings(GetSettingsRequest {}).await, Reason::TokenMissing);
        assert_refused(world.accounts().list_sessions(ListSessionsRequest::default()).await, Reason::TokenMissing);
        let ada = world.member("ada@example.org").await;
        let list = world.accounts().list_users(world.by(&ada, ListUsersRequest::default())).await;
        assert_refused(list, Reason::RoleMissing);
    }

    async fn bytes_that_are_no_protobuf_are_an_invalid_argument(backend: Backend) {
        let world = World::start(backend).await;
        let edge = world.mesh.channel("edge-gateway", "auth").await;
        let request = http::Request::post("/guildhall.auth.v1.AccountService/Login")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(Full::from(&b"\0\0\0\0\x03\xff\xff\xff"[..])))
            .unwrap();
        let (head, body) = edge.oneshot(request).await.unwrap().into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).unwrap();
        assert_eq!(status, &(Code::InvalidArgument as i32).to_string());
    }

    async fn a_token_endpoint_is_no_business_of_other_workloads(backend: Backend) {
        let world = World::start(backend).await;
        let content = world.mesh.channel("content", "auth").await;
        let ask = |path: &'static str, method: &'static str| {
            let request = http::Request::builder().method(method).uri(path).body(tonic::body::Body::empty()).unwrap();
            let content = content.clone();
            async move { content.oneshot(request).await.unwrap().status().as_u16() }
        };
        assert_eq!(ask("/oauth2/jwks", "GET").await, 200);
        assert_eq!(ask("/oauth2/token", "POST").await, 403);
        assert_eq!(ask("/.well-known/oauth-authorization-server", "GET").await, 403);
    }

    async fn a_refusal_never_shows_internals(backend: Backend) {
        let world = World::start(backend).await;
        let problem = refusal(world.login("nobody@example.org", "some password").await);
        assert_eq!(problem.text(), "The e-mail address or the password is wrong");
    }
}
