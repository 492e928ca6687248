use std::time::Duration;

use contracts::{
    auth::v1::profile_service_server::ProfileServiceServer,
    content::v1::{
        ExportPostsRequest, GetPostRequest, GetPostStatisticsRequest, post_service_client::PostServiceClient,
        post_service_server::PostServiceServer,
    },
};
use mesh::{Channel, deadline};
use status::Reason;
use tokio::{sync::mpsc, time::Instant};
use tonic::Request;

use crate::{
    services::{HANGS, POST, Posts, Profiles, Seen},
    world::{Running, World, reason, soon, with_token},
};

async fn content(world: &World) -> (Running, Channel, mpsc::UnboundedReceiver<Seen>) {
    let (posts, seen) = Posts::new();
    let content = world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await;
    let channel = world.channel("edge-gateway", "content", &content).await;
    (content, channel, seen)
}

fn get(id: &str, timeout: Option<Duration>) -> Request<GetPostRequest> {
    let mut request = Request::new(GetPostRequest { post_id: id.into() });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

async fn begun(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Option<Duration> {
    match soon(seen.recv()).await {
        Some(Seen::Begun { remaining }) => remaining,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handler_has_what_the_client_gives_a_default_and_a_cap() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let mut posts = PostServiceClient::new(channel);
    for (timeout, most) in [(Some(5), 5), (None, 15), (Some(3600), 60)] {
        posts.get_post(get(POST, timeout.map(Duration::from_secs))).await.unwrap();
        let remaining = begun(&mut seen).await.unwrap();
        assert!(remaining <= Duration::from_secs(most) && remaining > Duration::from_secs(most - 3), "{remaining:?}");
        assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));
    }
}

#[tokio::test]
async fn a_late_handler_is_dropped_and_the_client_told() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let timeout = Duration::from_millis(300);
    let started = Instant::now();
    let answer = PostServiceClient::new(channel).get_post(get(HANGS, Some(timeout))).await;
    assert_eq!(reason(answer), Reason::DeadlineExceeded);
    assert!(started.elapsed() >= timeout);
    begun(&mut seen).await;
    assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));
}

#[tokio::test]
async fn a_client_that_goes_away_drops_the_handler() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let call = tokio::spawn(async move { PostServiceClient::new(channel).get_post(get(HANGS, None)).await });
    begun(&mut seen).await;
    call.abort();
    assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));
}

#[tokio::test]
async fn the_time_that_is_left_travels_on_and_cancels_the_work_behind() {
    let world = World::start().await;
    let (seen, mut behind) = mpsc::unbounded_channel();
    let profiles = ProfileServiceServer::new(Profiles { seen, hang: true });
    let auth = world.serve("auth", |server| server.grpc(profiles)).await;
    let (mut posts, _) = Posts::new();
    posts.auth = Some(world.channel("content", "auth", &auth).await);
    let content = world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await;
    let channel = world.channel("edge-gateway", "content", &content).await;

    // The edge's own deadline is a task's; a token must not go on to a call for workloads alone.
    let request = with_token(GetPostStatisticsRequest { post_id: POST.into() }, &world.token(|_| {}));
    let whole = Duration::from_millis(800);
    let work = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        PostServiceClient::new(channel).get_post_statistics(request).await
    };
    let answer = deadline::scope(Instant::now() + whole, work).await;
    assert_eq!(reason(answer), Reason::DeadlineExceeded);
    let remaining = begun(&mut behind).await.unwrap();
    assert!(remaining + Duration::from_millis(100) <= whole, "{remaining:?}");
    assert_eq!(soon(behind.recv()).await, Some(Seen::Dropped));
}

#[tokio::test]
async fn no_call_begins_when_the_time_is_over_and_a_broken_timeout_is_the_clients_fault() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let mut posts = PostServiceClient::new(channel);
    let late = deadline::scope(Instant::now(), posts.get_post(get(POST, None))).await;
    assert_eq!(reason(late), Reason::DeadlineExceeded);
    assert!(seen.try_recv().is_err());

    let mut broken = get(POST, None);
    broken.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_eq!(reason(posts.get_post(broken).await), Reason::MalformedRequest);
}

#[tokio::test]
async fn a_stream_is_bounded_by_what_the_client_states_and_not_by_default() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let mut posts = PostServiceClient::new(channel);
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let mut request = with_token(ExportPostsRequest {}, &admin);
    request.set_timeout(Duration::from_millis(400));
    let mut rows = posts.export_posts(request).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    assert_eq!(reason(soon(rows.message()).await), Reason::DeadlineExceeded);
    assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires_or_is_revoked() {
    let world = World::start().await;
    let (_content, channel, mut seen) = content(&world).await;
    let mut posts = PostServiceClient::new(channel);
    let mut claims = world.claims();
    claims.roles = vec!["admin".into()];
    let token = crate::world::sign(&crate::world::header(), &claims);

    let mut rows = posts.export_posts(with_token(ExportPostsRequest {}, &token)).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    world.verifier.revocations().revoke(claims.sub.parse().unwrap(), claims.sid, world.source.now());
    assert_eq!(reason(soon(rows.message()).await), Reason::TokenRevoked);
    assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));

    let token = world.token(|claims| claims.roles = vec!["admin".into()]);
    let mut rows = posts.export_posts(with_token(ExportPostsRequest {}, &token)).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    world.clock.advance(Duration::from_secs(606));
    assert_eq!(reason(soon(rows.message()).await), Reason::TokenExpired);
}
