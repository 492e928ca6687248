//! What service tests rely on.

use std::sync::Arc;
use std::time::Duration;

use contracts::Role;
use contracts::auth::v1::profile_service_client::ProfileServiceClient;
use contracts::auth::v1::{BatchGetProfilesRequest, Profile, UserUpdated};
use ids::{Clock, SystemClock, UserId};
use status::Reason;
use testkit::{ManualClock, Mesh, Signer, TokenSpec};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_what_its_spec_says_until_the_clock_passes_its_lifetime() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let mesh = Mesh::with_clock(clock.clone()).await;
    let spec =
        TokenSpec { role: Role::Moderator, scope: "one two".to_owned(), ..TokenSpec::member(mesh.source().id()) };
    let token = mesh.token(&spec);
    let user = mesh.verifier().verify(&token).await.unwrap();
    assert_eq!((user.id, user.role), (spec.user, Role::Moderator));
    assert_eq!(user.scopes.join(" "), "one two");

    clock.advance(spec.lifetime + Duration::from_mins(2));
    let refused = mesh.verifier().verify(&token).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::TokenExpired);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_another_signer_is_refused() {
    let mesh = Mesh::start().await;
    let claims = TokenSpec::member(mesh.source().id()).claims(mesh.source());
    let foreign = Signer::generate().sign(&claims);
    assert_eq!(mesh.verifier().verify(&foreign).await.unwrap_err().reason(), Reason::TokenInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_for_auth_gives_keys_and_profiles_over_the_mesh_and_publishes_events() {
    let mesh = Mesh::start().await;
    let auth = mesh.serve_auth().await;
    let user: UserId = mesh.source().id();
    auth.profile(Profile { id: user.to_string(), display_name: "Ada".to_owned(), ..Profile::default() });

    let channel = mesh.channel("content", "auth").await;
    let request =
        BatchGetProfilesRequest { user_ids: vec![user.to_string(), mesh.source().id::<UserId>().to_string()] };
    let answer = ProfileServiceClient::new(channel.clone()).batch_get_profiles(request).await.unwrap().into_inner();
    assert_eq!(answer.profiles.iter().map(|profile| profile.display_name.as_str()).collect::<Vec<_>>(), ["Ada"]);

    let keys = mesh::token::RemoteKeys::new(channel);
    let fetching = tokio::spawn(keys.clone().run(tokio_util::sync::CancellationToken::new()));
    tokio::time::timeout(Duration::from_secs(10), keys.ready()).await.unwrap();
    fetching.abort();

    auth.publish(1, &UserUpdated { user_id: user.to_string() }).await;
    auth.settle(&mesh).await;
}
