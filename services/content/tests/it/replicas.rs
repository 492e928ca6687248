//! Two replicas of the service on one database. On PostgreSQL alone: a SQLite file is for one process, and a second one is refused.

use std::sync::Arc;
use std::time::Duration;

use chassis::Platform;
use contracts::content::v1::feed_service_client::FeedServiceClient;
use contracts::content::v1::post::State;
use contracts::content::v1::post_service_client::PostServiceClient;
use contracts::content::v1::{
    GetAtomFeedRequest, GetPostRequest, GetPostStatisticsRequest, ListPostsRequest, Post, PublishPostRequest,
    RecordViewRequest,
};
use events::{Bus, DeadLetters, Delivery, EmbeddedBus, Envelope, Handler, Running, Subscription};
use ids::{Clock, Timestamp};
use keyspace::redis;
use mesh::Channel;
use store::Db;
use testkit::{Backend, Service};
use tonic::Request;

use crate::world::{self, World, eventually};

/// The bus as a second process sees it: of the work each event goes to one replica, here the first; all hear what is broadcast.
struct Elsewhere {
    shared: Arc<EmbeddedBus>,
    work: EmbeddedBus,
}

#[tonic::async_trait]
impl Bus for Elsewhere {
    async fn publish(&self, events: &[Envelope]) -> Result<Vec<events::Receipt>, events::Error> {
        self.shared.publish(events).await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, events::Error> {
        match subscription.delivery {
            Delivery::Work => self.work.subscribe(subscription, handler, dead_letters).await,
            Delivery::Broadcast { .. } => self.shared.subscribe(subscription, handler, dead_letters).await,
        }
    }
}

/// What a second replica stands on.
async fn platform(world: &World) -> Platform {
    let (shared, work) = (world.mesh.bus(), EmbeddedBus::new(world.mesh.source().clone()));
    Platform { bus: Arc::new(Elsewhere { shared, work }), embedded: None, ..world.mesh.platform("content").await }
}

async fn second(world: &World) -> (Service, PostServiceClient<Channel>) {
    let bound = content::build(world.config(), platform(world).await).await.expect("a second replica is built");
    let service = world.mesh.serve(bound).await;
    (service, world::client(&world.mesh.channel("edge-gateway", "content").await))
}

async fn scalar(db: &Db, query: &'static str) -> i64 {
    store::fetch_scalar!(db.read().await.unwrap(), i64, query).await.unwrap()
}

async fn get(posts: &PostServiceClient<Channel>, id: &str) -> Option<Post> {
    let request = GetPostRequest { post_id: id.to_owned() };
    posts.clone().get_post(Request::new(request)).await.ok().map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_publishes_each_scheduled_post() {
    const POSTS: usize = 12;
    let world = World::start(Backend::Postgres).await;
    let (service, posts) = second(&world).await;
    let replicas = [world.posts.clone(), posts];
    let author = world.member("A");
    let at: Timestamp = world.clock.now() + Duration::from_mins(1);
    let mut scheduled = Vec::new();
    for number in 0..POSTS {
        let draft = world.draft(&author, &format!("Post {number}"), "text").await;
        let request = PublishPostRequest { post_id: draft.id, publish_at: Some(at.into()), etag: draft.etag };
        let post = replicas[number % 2].clone().publish_post(world.ask(&author, request)).await.unwrap().into_inner();
        scheduled.push(post);
    }

    // Both find the posts due, and come to the first one, before either can publish any.
    let db = world.open().await;
    let mut tx = db.begin().await.unwrap();
    let hold = "SELECT COUNT(*) FROM (SELECT id FROM posts ORDER BY id FOR UPDATE) held";
    store::fetch_scalar!(tx, i64, hold).await.unwrap();
    world.clock.advance(Duration::from_secs(61));
    let waiting =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("both replicas want to publish", async || scalar(&db, waiting).await >= 2).await;
    tx.commit().await.unwrap();

    for post in &scheduled {
        for replica in &replicas {
            eventually("it is published", async || get(replica, &post.id).await.is_some()).await;
        }
        let published = get(&replicas[0], &post.id).await.unwrap();
        assert_eq!((published.state(), published.publish_time), (State::Published, Some(at.into())));
        assert_eq!(published.version, 1);
    }
    // A turn of each that finds nothing more to do, and the events on their way.
    let marker = world.draft(&author, "Marker", "").await;
    let soon = Some((world.clock.now() + Duration::from_secs(1)).into());
    let request = PublishPostRequest { post_id: marker.id.clone(), publish_at: soon, ..PublishPostRequest::default() };
    replicas[1].clone().publish_post(world.ask(&author, request)).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    eventually("the marker was told", async || world.told(&marker.id).len() == 2).await;
    for post in &scheduled {
        let told = [("content.post.created".to_owned(), 1), ("content.post.published".to_owned(), 3)];
        assert_eq!(world.told(&post.id), told);
    }
    let all = i64::try_from(POSTS + 1).unwrap();
    let published = "SELECT COUNT(*) FROM outbox WHERE topic = 'content.post.published'";
    assert_eq!(scalar(&db, published).await, all);
    assert_eq!(scalar(&db, "SELECT COUNT(*) FROM post_versions").await, all);
    assert_eq!(scalar(&db, "SELECT COUNT(*) FROM post_statistics").await, all);
    db.close().await;
    service.stop().await.unwrap();
    world.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_count_together_and_read_each_others_page_tokens() {
    let world = World::start(Backend::Postgres).await;
    let (service, posts) = second(&world).await;
    let replicas = [world.posts.clone(), posts];
    let author = world.member("A");
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(world.published(&author, &number.to_string(), "").await.id);
        world.clock.advance(Duration::from_secs(1));
    }
    for (at, replica) in (1..=40).zip(replicas.iter().cycle()) {
        // Both write the same posts, of which neither has seen them in the other's order.
        let request = RecordViewRequest { post_id: ids[at * at % 3].clone() };
        replica.clone().record_view(Request::new(request)).await.unwrap();
    }
    let views = async || {
        let mut sum = 0;
        for id in &ids {
            let request = GetPostStatisticsRequest { post_id: id.clone() };
            sum += replicas[0].clone().get_post_statistics(Request::new(request)).await.unwrap().into_inner().views;
        }
        sum
    };
    eventually("all views show", async || views().await == 40).await;

    let list = ListPostsRequest { page_size: 2, ..ListPostsRequest::default() };
    let first = replicas[0].clone().list_posts(Request::new(list.clone())).await.unwrap().into_inner();
    let rest = ListPostsRequest { page_token: first.next_page_token, ..list };
    let rest = replicas[1].clone().list_posts(Request::new(rest)).await.unwrap().into_inner();
    let titles: Vec<_> = first.posts.iter().chain(&rest.posts).map(|post| post.title.as_str()).collect();
    assert_eq!(titles, ["2", "1", "0"]);
    service.stop().await.unwrap();
    assert_eq!(views().await, 40, "what is written at the end was written before");
    world.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_give_out_the_same_feed_where_they_share_a_redis() {
    let world = World::start(Backend::Postgres).await;
    let keyspace = keyspace::testing::keyspace();
    let replica = async || {
        let platform = Platform { keyspace: Some(keyspace.clone()), ..platform(&world).await };
        let bound = content::build(world.config(), platform).await.expect("a replica is built");
        let service = world.mesh.serve(bound).await;
        (service, FeedServiceClient::new(world.mesh.channel("edge-gateway", "content").await))
    };
    let feed = async |client: &FeedServiceClient<Channel>| {
        let request = Request::new(GetAtomFeedRequest {});
        String::from_utf8(client.clone().get_atom_feed(request).await.unwrap().into_inner().data.into()).unwrap()
    };
    let (_one, first) = replica().await;
    let (_other, second) = replica().await;
    let author = world.member("A");
    world.published(&author, "Before", "").await;
    // Longer than its five seconds, so that the machine's speed decides nothing.
    let kept = async || {
        feed(&first).await;
        let key = keyspace.key("cache/feeds/atom", "value");
        keyspace.run(redis::cmd("PEXPIRE").arg(key).arg(600_000)).await.unwrap()
    };
    eventually("the feed is in Redis", kept).await;
    world.published(&author, "After", "").await;
    let shown = feed(&second).await;
    assert!(shown.contains("Before") && !shown.contains("After"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_sqlite_file_does_not_start() {
    let world = World::start(Backend::Sqlite).await;
    let refused = content::build(world.config(), platform(&world).await).await.map(drop).unwrap_err();
    assert!(matches!(refused, content::Error::Store(store::Error::InUse { .. })), "{refused:?}");
    world.settle().await;
}
