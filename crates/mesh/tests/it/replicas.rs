//! Several endpoints of one service, some of which do not do what they should.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::middleware::{Next, from_fn};
use contracts::content::v1::{
    ExportPostsRequest, ListTagsRequest, RenameTagRequest, Tag, post_service_client::PostServiceClient,
    post_service_server::PostServiceServer, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use futures_util::{FutureExt, future::BoxFuture};
use mesh::{Channel, Endpoints, Resolver, Settings};
use status::{Problem, Reason};
use tokio::task::JoinSet;
use tonic::{Request, Status};

use crate::{
    services::{Behaviour, POST, Posts, Replica},
    world::{Running, World, reason, soon, with_token},
};

/// Replicas of content, and a channel to them.
struct Content {
    replicas: Vec<(Replica, Running)>,
    channel: Channel,
    world: World,
}

impl Content {
    async fn start<const N: usize>(behaviours: [Behaviour; N]) -> Self {
        Self::with(behaviours, &Settings::default()).await
    }

    async fn with<const N: usize>(behaviours: [Behaviour; N], settings: &Settings) -> Self {
        let world = World::start().await;
        let mut replicas = Vec::new();
        for behaviour in behaviours {
            let replica = Replica::new(behaviour);
            let running = serve(&world, &replica).await;
            replicas.push((replica, running));
        }
        let addresses: Vec<_> = replicas.iter().map(|(_, running)| running.address.to_string()).collect();
        let identity = world.identity("edge-gateway").await;
        let endpoints = Endpoints::try_from(addresses).unwrap();
        let channel = mesh::connect_with(&identity, "content".parse().unwrap(), endpoints, settings);
        Self { replicas, channel, world }
    }

    fn calls(&self) -> Vec<usize> {
        self.replicas.iter().map(|(replica, _)| replica.calls()).collect()
    }

    fn tags(&self) -> TagServiceClient<Channel> {
        TagServiceClient::new(self.channel.clone())
    }

    /// A call that the contract does not let anybody repeat.
    fn rename(&self) -> Request<RenameTagRequest> {
        rename(&self.world)
    }
}

async fn serve(world: &World, replica: &Replica) -> Running {
    world.serve("content", |server| server.grpc(TagServiceServer::new(replica.clone()))).await
}

fn rename(world: &World) -> Request<RenameTagRequest> {
    with_token(named("a"), &moderator(world))
}

fn named(name: &str) -> RenameTagRequest {
    let tag = Tag { name: name.to_owned(), ..Tag::default() };
    RenameTagRequest { tag_id: POST.into(), tag: Some(tag), ..RenameTagRequest::default() }
}

fn moderator(world: &World) -> String {
    world.token(|claims| claims.roles = vec!["moderator".into()])
}

fn unavailable() -> Status {
    Problem::new(Reason::Unavailable).into()
}

fn no_retries() -> Settings {
    Settings { retry: false, ..Settings::default() }
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_safe_call_that_one_replica_cannot_serve_goes_to_another() {
    let content = Content::start([Behaviour::Refuses(unavailable()), Behaviour::Serves]).await;
    for _ in 0..50 {
        content.tags().list_tags(ListTagsRequest::default()).await.unwrap();
    }
    let calls = content.calls();
    assert_eq!(calls[1], 50);
    assert!((1..=7).contains(&calls[0]), "it was asked until its breaker opened: {calls:?}");
}

#[tokio::test]
async fn a_call_that_is_not_safe_is_sent_once() {
    let content = Content::start([Behaviour::Refuses(unavailable())]).await;
    for sent in 1..=5 {
        assert_eq!(reason(content.tags().rename_tag(content.rename()).await), Reason::Unavailable);
        assert_eq!(content.calls(), [sent]);
    }
}

#[tokio::test]
async fn with_retries_off_nothing_is_sent_twice() {
    let content =
        Content::with([Behaviour::Refuses(unavailable()), Behaviour::Refuses(unavailable())], &no_retries()).await;
    for sent in 1..=10 {
        let answer = content.tags().list_tags(ListTagsRequest::default()).await;
        assert_eq!(reason(answer), Reason::Unavailable);
        assert_eq!(content.calls().iter().sum::<usize>(), sent);
    }
}

#[tokio::test]
async fn a_call_of_any_kind_goes_on_from_where_nobody_listens_even_with_retries_off() {
    for settings in [Settings::default(), no_retries()] {
        let world = World::start().await;
        let replica = Replica::new(Behaviour::Serves);
        let running = serve(&world, &replica).await;
        let addresses = vec![nowhere().await.to_string(), nowhere().await.to_string(), running.address.to_string()];
        let endpoints = Endpoints::try_from(addresses).unwrap();
        let identity = world.identity("edge-gateway").await;
        let channel = mesh::connect_with(&identity, "content".parse().unwrap(), endpoints, &settings);
        for _ in 0..30 {
            TagServiceClient::new(channel.clone()).rename_tag(rename(&world)).await.unwrap();
        }
        assert_eq!(replica.calls(), 30);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_repeated() {
    let world = World::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    // Reads the whole request, so that none of it is left to be sent, and refuses it.
    let refuse = from_fn(move |request: axum::extract::Request, _: Next| {
        let calls = counted.clone();
        async move {
            axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            calls.fetch_add(1, Ordering::SeqCst);
            unavailable().into_http::<axum::body::Body>()
        }
    });
    let content = world.serve("content", |server| server.layer(refuse)).await;
    let mut tags = TagServiceClient::new(world.channel("edge-gateway", "content", &content).await);
    for (length, sends) in [(70_000, 1..=1), (60_000, 4..=4)] {
        let request = ListTagsRequest { page_token: "a".repeat(length), ..ListTagsRequest::default() };
        let before = calls.load(Ordering::SeqCst);
        assert_eq!(reason(tags.list_tags(request).await), Reason::Unavailable);
        assert!(sends.contains(&(calls.load(Ordering::SeqCst) - before)), "{length}");
    }
}

#[tokio::test]
async fn what_a_server_says_about_when_to_come_back_is_kept() {
    let pause = Duration::from_millis(400);
    let busy: Status = Problem::new(Reason::Unavailable).retry_after(pause).into();
    let content = Content::start([Behaviour::Refuses(busy), Behaviour::Serves]).await;
    while content.calls()[0] == 0 {
        let started = Instant::now();
        content.tags().list_tags(ListTagsRequest::default()).await.unwrap();
        assert!(content.calls()[0] == 0 || started.elapsed() >= pause);
    }
    let mut soon = Request::new(ListTagsRequest::default());
    soon.set_timeout(Duration::from_millis(300));
    let away: Status = Problem::new(Reason::Unavailable).retry_after(pause).into();
    let content = Content::start([Behaviour::Refuses(away)]).await;
    let started = Instant::now();
    let answer = content.tags().list_tags(soon).await;
    assert_eq!(reason(answer), Reason::Unavailable, "it says so at once where the deadline comes first");
    assert!(started.elapsed() < Duration::from_millis(250));
    assert_eq!(content.calls(), [1]);
}

#[tokio::test]
async fn when_every_endpoint_is_out_calls_are_refused_at_once_and_told_when_to_come_back() {
    let content = Content::start([Behaviour::Refuses(unavailable()), Behaviour::Refuses(unavailable())]).await;
    let mut refused = None;
    for _ in 0..100 {
        let before = content.calls();
        let error = content.tags().list_tags(ListTagsRequest::default()).await.unwrap_err();
        if content.calls() == before {
            refused = Some(error);
            break;
        }
    }
    let problem = Problem::from(&refused.expect("the breakers have opened"));
    assert_eq!(problem.reason(), Reason::Unavailable);
    let delay = problem.retry_delay().unwrap();
    assert!(delay <= Duration::from_millis(1500), "{delay:?}");
    assert_eq!(content.calls(), [7, 7]);

    let started = Instant::now();
    for _ in 0..100 {
        content.tags().list_tags(ListTagsRequest::default()).await.unwrap_err();
    }
    assert!(started.elapsed() < Duration::from_millis(900), "nothing waits");
    // They serve again, and one probe each finds out.
    for (replica, _) in &content.replicas {
        replica.behave(Behaviour::Serves);
    }
    soon(async {
        while content.tags().list_tags(ListTagsRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_storm_of_failing_calls_stays_within_the_budget() {
    // It serves often enough for its breaker to stay closed, so that every call is tried.
    let content = Content::start([Behaviour::Stumbles(unavailable())]).await;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    let per_client = 200;
    for _ in 0..4 {
        let mut tags = content.tags();
        clients.spawn(async move {
            let mut failed = 0;
            for _ in 0..per_client {
                failed += usize::from(tags.list_tags(ListTagsRequest::default()).await.is_err());
            }
            failed
        });
    }
    let failed: usize = clients.join_all().await.into_iter().sum();
    let (calls, sends) = (4 * per_client, content.calls()[0]);
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    assert!(sends <= calls * 12 / 10 + 10 * (seconds + 1), "{sends} sends of {calls} calls in {seconds} s");
    assert!(sends > calls, "some were repeated");
    assert!(failed > 0, "and some were not, for want of budget");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_ten_times_slower_gets_less_than_a_tenth_of_the_calls() {
    // Long beside what the machine may add.
    let (fast, slow) = (Duration::from_millis(60), Duration::from_millis(600));
    let content = Content::start([Behaviour::Takes(fast), Behaviour::Takes(slow)]).await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut tags = content.tags();
        clients.spawn(async move {
            for _ in 0..100 {
                tags.list_tags(ListTagsRequest::default()).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let calls = content.calls();
    assert_eq!(calls.iter().sum::<usize>(), 400);
    assert!(calls[1] * 10 < 400, "{calls:?}");
    assert!(calls[1] > 0, "it was measured");
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_asked_for_again() {
    let world = World::start().await;
    let (mut replicas, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (posts, events) = Posts::new();
        replicas.push(world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await);
        seen.push(events);
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address.to_string()).collect();
    let identity = world.identity("edge-gateway").await;
    let channel = mesh::connect(&identity, "content".parse().unwrap(), Endpoints::try_from(addresses).unwrap());
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let mut rows = PostServiceClient::new(channel)
        .export_posts(with_token(ExportPostsRequest {}, &admin))
        .await
        .unwrap()
        .into_inner();
    rows.message().await.unwrap().unwrap();
    for replica in &replicas {
        replica.drain.cancel();
        replica.kill.cancel();
    }
    assert_eq!(reason(soon(rows.message()).await), Reason::Unavailable);
    for replica in replicas {
        soon(replica.task).await.unwrap().unwrap();
    }
    let streams: usize = seen.iter_mut().map(|seen| std::iter::from_fn(|| seen.try_recv().ok()).count()).sum();
    assert_eq!(streams, 1);
}

/// Names that the test sets.
#[derive(Default)]
struct Names(Mutex<Option<Vec<SocketAddr>>>, AtomicUsize);

impl Names {
    fn point_to(&self, addresses: Option<Vec<SocketAddr>>) {
        *self.0.lock().unwrap() = addresses;
    }

    async fn asked_again(&self) {
        let asked = self.1.load(Ordering::SeqCst);
        while self.1.load(Ordering::SeqCst) < asked + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        assert_eq!(name, "content.example:8082");
        self.1.fetch_add(1, Ordering::SeqCst);
        let known = self.0.lock().unwrap().clone();
        std::future::ready(known.ok_or_else(|| io::ErrorKind::NotFound.into())).boxed()
    }
}

#[tokio::test]
async fn endpoints_follow_their_name() {
    let world = World::start().await;
    let (old, new) = (Replica::new(Behaviour::Serves), Replica::new(Behaviour::Serves));
    let (first, second) = (serve(&world, &old).await, serve(&world, &new).await);
    let names = Arc::new(Names::default());
    let settings =
        Settings { resolver: names.clone(), lookup_interval: Duration::from_millis(20), ..Settings::default() };
    let identity = world.identity("edge-gateway").await;
    let endpoints = "dns:content.example:8082".parse().unwrap();
    let channel = mesh::connect_with(&identity, "content".parse().unwrap(), endpoints, &settings);
    let call = || {
        let mut tags = TagServiceClient::new(channel.clone());
        async move { tags.list_tags(ListTagsRequest::default()).await }
    };

    let unknown = call().await.unwrap_err();
    assert_eq!(Problem::from(&unknown).reason(), Reason::Unavailable);
    assert!(Problem::from(&unknown).retry_delay().is_some());
    names.point_to(Some(vec![first.address]));
    soon(names.asked_again()).await;
    call().await.unwrap();
    names.point_to(None);
    soon(names.asked_again()).await;
    call().await.unwrap();
    assert_eq!((old.calls(), new.calls()), (2, 0), "the last good answer holds");

    // What is in flight at one that goes is finished there.
    old.behave(Behaviour::Takes(Duration::from_millis(300)));
    let flying = tokio::spawn(call());
    soon(async {
        while old.calls() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    names.point_to(Some(vec![second.address]));
    soon(names.asked_again()).await;
    for _ in 0..20 {
        call().await.unwrap();
    }
    assert_eq!((old.calls(), new.calls()), (3, 20));
    flying.await.unwrap().unwrap();
}

#[tokio::test]
async fn where_nobody_listened_is_tried_when_there_is_nobody_else() {
    let world = World::start().await;
    let slow = Replica::new(Behaviour::Takes(Duration::from_millis(100)));
    let (present, absent) = (serve(&world, &slow).await, nowhere().await);
    let addresses = vec![present.address.to_string(), absent.to_string()];
    let identity = world.identity("edge-gateway").await;
    let channel = mesh::connect(&identity, "content".parse().unwrap(), Endpoints::try_from(addresses).unwrap());
    let mut tags = TagServiceClient::new(channel);
    // Until the breaker of the other has opened.
    for _ in 0..10 {
        tags.rename_tag(rename(&world)).await.unwrap();
    }
    // One comes up just as the other goes down.
    let replica = Replica::new(Behaviour::Serves);
    let server = |server: mesh::Server| server.grpc(TagServiceServer::new(replica.clone()));
    let _new = world.serve_at(absent, "content", server).await;
    present.drain.cancel();
    soon(present.task).await.unwrap().unwrap();
    for _ in 0..10 {
        tags.rename_tag(rename(&world)).await.unwrap();
    }
    assert_eq!((slow.calls(), replica.calls()), (10, 10));
}

/// Calls from several clients, half of which must not run twice, until it is told to stop.
async fn load(content: &Content, stop: Arc<AtomicBool>) -> (usize, HashSet<String>) {
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (mut tags, stop) = (content.tags(), stop.clone());
        let token = moderator(&content.world);
        clients.spawn(async move {
            let mut renamed = HashSet::new();
            let mut call = 0;
            while !stop.load(Ordering::SeqCst) {
                tags.list_tags(ListTagsRequest::default()).await.unwrap();
                let name = format!("{client}-{call}");
                tags.rename_tag(with_token(named(&name), &token)).await.unwrap();
                renamed.insert(name);
                call += 1;
            }
            renamed
        });
    }
    let renamed: Vec<_> = clients.join_all().await;
    (renamed.iter().map(HashSet::len).sum(), renamed.into_iter().flatten().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_restarts_of_one_of_two_replicas_fail_no_call_and_run_none_twice() {
    let mut content = Content::start([Behaviour::Serves, Behaviour::Serves]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let restarts = 10;
    let (replica, mut running) = content.replicas.pop().unwrap();
    let restarting = async {
        for _ in 0..restarts {
            let before = replica.calls();
            soon(async {
                while replica.calls() < before + 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            running.drain.cancel();
            soon(&mut running.task).await.unwrap().unwrap();
            running = content
                .world
                .serve_at(running.address, "content", |server| server.grpc(TagServiceServer::new(replica.clone())))
                .await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let ((count, names), ()) = tokio::join!(load(&content, stop.clone()), restarting);
    assert!(count >= restarts * 10, "{count}");
    assert_eq!(names.len(), count);
    let handled: Vec<_> = [&content.replicas[0].0, &replica].iter().flat_map(|replica| replica.renamed()).collect();
    assert_eq!(handled.len(), count, "none ran twice");
    assert_eq!(handled.into_iter().collect::<HashSet<_>>(), names);
}
