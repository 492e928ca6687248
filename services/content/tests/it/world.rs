//! The service, its callers and its clock.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content::Config;
use contracts::Role;
use contracts::auth::v1::Profile;
use contracts::content::v1::post_service_client::PostServiceClient;
use contracts::content::v1::{CreatePostRequest, Post, PublishPostRequest};
use events::{Bus, DeadLetters, Delivery, Envelope, Failure, Handler, Running, Subscription};
use ids::{ManualClock, Source, UserId};
use mesh::Channel;
use status::{Problem, Reason};
use store::Db;
use testkit::{Backend, Mesh, Service, StandIn, TestDb, TokenSpec};
use tonic::{Request, Response, Status};

/// How long what happens in the background may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct World {
    pub mesh: Mesh,
    pub clock: Arc<ManualClock>,
    pub auth: StandIn,
    pub posts: PostServiceClient<Channel>,
    service: Option<Service>,
    pub channel: Channel,
    published: Arc<Mutex<Vec<Envelope>>>,
    _recording: Running,
    database: TestDb,
}

/// Somebody with a token.
pub struct Person {
    pub id: UserId,
    token: String,
}

struct Recorder(Arc<Mutex<Vec<Envelope>>>);

#[tonic::async_trait]
impl Handler for Recorder {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

const RECORDER: Subscription = Subscription {
    consumer: "test.recorder",
    topics: &[
        "content.post.created",
        "content.post.published",
        "content.post.unpublished",
        "content.post.updated",
        "content.post.deleted",
        "content.post.undeleted",
        "content.tag.renamed",
        "content.tag.merged",
    ],
    delivery: Delivery::Broadcast { replay: Duration::ZERO },
};

impl World {
    pub async fn start(backend: Backend) -> Self {
        let clock = Arc::new(ManualClock::new(Source::system().now()));
        let mesh = Mesh::with_clock(Arc::clone(&clock)).await;
        // The service opens the database itself, and SQLite admits one process, so that this one lets go of it.
        let database = store::testing::database(backend, &[]).await;
        database.close().await;
        let auth = mesh.serve_auth().await;
        let published = Arc::default();
        let recorder = Arc::new(Recorder(Arc::clone(&published)));
        let recording = mesh.bus().subscribe(RECORDER, recorder, DeadLetters::log_only()).await.unwrap();
        let service = Some(serve(&mesh, &database).await);
        let channel = mesh.channel("edge-gateway", "content").await;
        let posts = client(&channel);
        Self { mesh, clock, auth, posts, service, channel, published, _recording: recording, database }
    }

    /// Ends the service and starts it again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        self.service = Some(serve(&self.mesh, &self.database).await);
        self.channel = self.mesh.channel("edge-gateway", "content").await;
        self.posts = client(&self.channel);
    }

    async fn stop(&mut self) {
        let service = self.service.take().expect("the service runs");
        service.stop().await.expect("the service ends well");
    }

    /// Ends the service, works on its database and starts the service again.
    pub async fn meanwhile<T>(&mut self, work: impl AsyncFnOnce(&Db) -> T) -> T {
        self.stop().await;
        let outcome = self.offline(work).await;
        self.start_again().await;
        outcome
    }

    /// Ends the service and looks into its database. No event may be left in its outbox.
    pub async fn settle(mut self) {
        self.stop().await;
        let pending = self.offline(async |db| events::Outbox::pending(db).await.unwrap()).await;
        assert_eq!(pending, 0, "every event was published");
    }

    /// The settings of one more replica.
    pub fn config(&self) -> Config {
        config(&self.database)
    }

    /// The service's database. SQLite admits one process: there the service has to have ended.
    pub async fn open(&self) -> Db {
        Db::open(store::Settings::new(self.database.url())).await.unwrap()
    }

    async fn offline<T>(&self, work: impl AsyncFnOnce(&Db) -> T) -> T {
        let db = self.open().await;
        let outcome = work(&db).await;
        db.close().await;
        outcome
    }

    /// A member whose name auth knows.
    pub fn member(&self, name: &str) -> Person {
        self.person(name, Role::Member)
    }

    pub fn moderator(&self) -> Person {
        self.person("Moderator", Role::Moderator)
    }

    pub fn admin(&self) -> Person {
        self.person("Admin", Role::Admin)
    }

    fn person(&self, name: &str, role: Role) -> Person {
        let id: UserId = self.mesh.source().id();
        self.name(id, name);
        Person { id, token: self.mesh.token(&TokenSpec { role, ..TokenSpec::member(id) }) }
    }

    /// The same person with a new token, after time has passed.
    pub fn again(&self, person: &Person) -> Person {
        Person { id: person.id, token: self.mesh.token(&TokenSpec::member(person.id)) }
    }

    /// Tells auth a person's name.
    pub fn name(&self, id: UserId, name: &str) {
        self.auth.profile(Profile { id: id.to_string(), display_name: name.to_owned(), ..Profile::default() });
    }

    /// A request in a person's name.
    pub fn ask<T>(&self, person: &Person, message: T) -> Request<T> {
        self.mesh.as_user(&person.token, message)
    }

    /// A draft of this person.
    pub async fn draft(&self, person: &Person, title: &str, markdown: &str) -> Post {
        let request = CreatePostRequest {
            title: title.to_owned(),
            markdown: markdown.to_owned(),
            ..CreatePostRequest::default()
        };
        self.posts.clone().create_post(self.ask(person, request)).await.expect("a draft").into_inner()
    }

    /// A post of this person that everybody can read.
    pub async fn published(&self, person: &Person, title: &str, markdown: &str) -> Post {
        let post = self.draft(person, title, markdown).await;
        self.publish(person, &post).await
    }

    pub async fn publish(&self, person: &Person, post: &Post) -> Post {
        let request = PublishPostRequest { post_id: post.id.clone(), ..PublishPostRequest::default() };
        self.posts.clone().publish_post(self.ask(person, request)).await.expect("a published post").into_inner()
    }

    /// What content told of this key so far: topics with versions, in order.
    pub fn told(&self, key: &str) -> Vec<(String, i64)> {
        let events = self.published.lock().unwrap();
        events.iter().filter(|event| event.key == key).map(|event| (event.topic.clone(), event.version)).collect()
    }
}

async fn serve(mesh: &Mesh, database: &TestDb) -> Service {
    let bound = content::build(config(database), mesh.platform("content").await).await.expect("content is built");
    mesh.serve(bound).await
}

fn config(database: &TestDb) -> Config {
    let settings = testkit::overrides().set("issuer", testkit::ISSUER).set("database.url", database.url());
    chassis::config::load(content::DEFAULTS, content::NAME, None, &settings).unwrap()
}

pub fn client(channel: &Channel) -> PostServiceClient<Channel> {
    PostServiceClient::new(channel.clone()).max_encoding_message_size(usize::MAX)
}

/// Looks again until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let found = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("it never happened that {what}"));
}

/// Why the call was refused, and the fields that were named.
pub fn refusal<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> (Reason, Vec<String>) {
    let problem = Problem::from(&outcome.expect_err("a refusal"));
    (problem.reason(), problem.violation_list().iter().map(|violation| violation.field.clone()).collect())
}

/// Asserts that the call was refused for this reason.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>, reason: Reason) {
    assert_eq!(refusal(outcome).0, reason);
}
