//! Clients that write without pause, over REST and gRPC, and note what they are told.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::content::v1::post_service_client::PostServiceClient;
use contracts::content::v1::{CreatePostRequest, PublishPostRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use status::Problem;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Run;
use super::journal::{Journal, Outcome, Refusal, Write};
use crate::{Answer, Call, PASSWORD, eventually};

/// Longer than the longest deadline of a call that names none.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For how long a client looks for an edge that takes its call.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two edges that do not take it.
const BEFORE_NEXT: Duration = Duration::from_millis(20);
/// Between two attempts of a client that insists.
const BEFORE_AGAIN: Duration = Duration::from_millis(100);
/// An access token lives for ten minutes.
const TOKEN_AGE: Duration = Duration::from_mins(4);
/// Posts that one client goes on working on.
const REMEMBERED: usize = 20;
/// How long the first calls may take, on a machine that is busy.
const SETUP: Duration = Duration::from_mins(1);

/// How clients go about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Clients at a time. The first one is the admin.
    pub writers: usize,
    /// Whether each call has a connection of its own.
    pub fresh: bool,
    /// Calls over gRPC, in a hundred of those that both can say.
    pub grpc: u32,
    /// Between two calls of one client.
    pub pause: Duration,
}

impl Default for Manner {
    fn default() -> Self {
        Self { writers: 6, fresh: false, grpc: 30, pause: Duration::from_millis(5) }
    }
}

impl Manner {
    /// The usual one. In a long run clients take more time between two calls: their journal is compared call by call, and their
    /// events have to arrive before that.
    pub fn of(run: &Run) -> Self {
        let usual = Self::default();
        Self { pause: run.choose(usual.pause, 5 * usual.pause), ..usual }
    }
}

/// The first admin's credentials.
#[derive(Clone, Debug)]
pub struct Admin {
    pub email: String,
    pub password: String,
}

/// Clients at work. Dropped, they stop at once.
pub struct Load {
    pub journal: Arc<Journal>,
    stop: CancellationToken,
    writers: JoinSet<()>,
}

impl Load {
    /// Registers the clients and lets them write. Fails if the system does not work yet.
    pub async fn start(edges: &[String], admin: &Admin, seed: u64, manner: Manner) -> Self {
        let edges: Arc<[Edge]> = edges.iter().map(|url| Edge::new(url, manner.fresh)).collect();
        let journal = Arc::new(Journal::default());
        let stop = CancellationToken::new();
        // Content knows each author before the first event about them is on its way.
        let victim = Writer::new(&edges, &journal, manner, seed, 0).register().await.write_first().await.person.id;
        let mut writers = JoinSet::new();
        for number in 0..manner.writers {
            let writer = Writer::new(&edges, &journal, manner, seed, number + 1);
            let stop = stop.clone();
            if number == 0 {
                let admin = writer.log_in_as(admin).await;
                let victim = victim.clone();
                writers.spawn(async move { admin.moderate(victim, stop).await });
            } else {
                let writer = writer.register().await.write_first().await;
                writers.spawn(async move { writer.work(stop).await });
            }
        }
        Self { journal, stop, writers }
    }

    /// Lets each client finish its call, and fails if one of them failed.
    pub async fn stop(mut self) -> Arc<Journal> {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a client does not fail, whatever it is told");
        }
        Arc::clone(&self.journal)
    }

    /// Waits until so many more calls were acknowledged: the system works.
    pub async fn works(&self, more: usize, limit: Duration) {
        let before = self.journal.acknowledged();
        eventually(limit, "calls are acknowledged", async || {
            (self.journal.acknowledged() >= before + more).then_some(())
        })
        .await;
    }
}

/// One way in.
struct Edge {
    url: String,
    rest: reqwest::Client,
    grpc: Endpoint,
    /// Kept between calls, unless each has a connection of its own.
    channel: Option<Channel>,
}

impl Edge {
    fn new(url: &str, fresh: bool) -> Self {
        let rest = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        // HTTP/2 says with its GOAWAY which calls were not looked at; HTTP/1.1 leaves that open.
        let rest = if fresh { rest.pool_max_idle_per_host(0) } else { rest.http2_prior_knowledge() };
        let grpc = Endpoint::from_shared(url.to_owned()).expect("an address").timeout(TIMEOUT);
        let channel = (!fresh).then(|| grpc.connect_lazy());
        Self { url: url.to_owned(), rest: rest.build().expect("a client"), grpc, channel }
    }

    fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self.rest.request(method, format!("{}{path}", self.url)))
    }

    fn posts(&self) -> PostServiceClient<Channel> {
        PostServiceClient::new(self.channel.clone().unwrap_or_else(|| self.grpc.connect_lazy()))
    }
}

/// Who a client is.
#[derive(Default)]
struct Person {
    id: String,
    email: String,
    password: String,
    token: String,
    since: Option<Instant>,
}

/// One client.
struct Writer {
    edges: Arc<[Edge]>,
    /// Which edge it talks to.
    at: usize,
    journal: Arc<Journal>,
    manner: Manner,
    dice: StdRng,
    /// What its marks begin with.
    name: String,
    /// How many marks it has made.
    marks: usize,
    person: Person,
    drafts: Vec<String>,
    published: Vec<String>,
}

/// What one call came to.
enum Reply {
    Done(Value),
    Refused(Refusal),
    /// Nobody looked at it.
    Untouched,
    Lost(String),
}

impl Writer {
    fn new(edges: &Arc<[Edge]>, journal: &Arc<Journal>, manner: Manner, seed: u64, number: usize) -> Self {
        Self {
            edges: Arc::clone(edges),
            at: number % edges.len(),
            journal: Arc::clone(journal),
            manner,
            dice: StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32)),
            name: format!("f{seed}w{number}"),
            marks: 0,
            person: Person::default(),
            drafts: Vec::new(),
            published: Vec::new(),
        }
    }

    async fn register(mut self) -> Self {
        let email = format!("{}@example.org", self.name);
        let body = json!({"email": email, "password": PASSWORD, "displayName": self.name});
        eventually(SETUP, "somebody can register", async || {
            let answer = self.edges[self.at].call(Method::POST, "/api/v1/auth/register").json(&body).try_send().await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
        self.person = Person { email, password: PASSWORD.to_owned(), ..Person::default() };
        self.prepared().await
    }

    async fn log_in_as(mut self, admin: &Admin) -> Self {
        let Admin { email, password } = admin.clone();
        self.person = Person { email, password, ..Person::default() };
        self.prepared().await
    }

    /// Has its token and knows its own id.
    async fn prepared(mut self) -> Self {
        self.log_in().await;
        assert!(!self.person.token.is_empty(), "{} cannot log in", self.person.email);
        let me = eventually(SETUP, "somebody sees their own account", async || {
            let me = self.edges[self.at].call(Method::GET, "/api/v1/users/me").token(&self.person.token);
            me.try_send().await.ok().filter(|answer| answer.status == 200)
        })
        .await;
        me.json()["id"].as_str().expect("an id").clone_into(&mut self.person.id);
        self
    }

    async fn write_first(mut self) -> Self {
        let mark = self.mark();
        self.write(Write::Insist { mark }).await;
        self
    }

    /// Writes whatever the dice say until told to stop.
    async fn work(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let write = self.choose();
            self.write(write).await;
            tokio::time::sleep(self.manner.pause).await;
        }
    }

    /// Shuts somebody out and lets them in again, until told to stop.
    async fn moderate(mut self, victim: String, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.write(Write::Suspend { user: victim.clone() }).await;
            tokio::time::sleep(self.manner.pause).await;
            self.write(Write::Reinstate { user: victim.clone() }).await;
            tokio::time::sleep(self.manner.pause).await;
        }
    }

    fn choose(&mut self) -> Write {
        let die = self.dice.random_range(0..100);
        let drafts = [&self.drafts[..], &self.published].concat();
        match die {
            30..50 if !drafts.is_empty() => {
                let post = drafts[self.dice.random_range(0..drafts.len())].clone();
                Write::Edit { post, mark: self.mark() }
            }
            50..65 if !self.drafts.is_empty() => {
                let post = self.drafts.remove(self.dice.random_range(0..self.drafts.len()));
                Write::Publish { post }
            }
            65..75 if !self.published.is_empty() => {
                Write::Like { post: self.published[self.dice.random_range(0..self.published.len())].clone() }
            }
            75..87 => Write::Rename { mark: self.mark() },
            87..97 => Write::Insist { mark: self.mark() },
            97..100 => Write::Register { mark: self.mark() },
            _ => Write::Create { mark: self.mark() },
        }
    }

    fn mark(&mut self) -> String {
        self.marks += 1;
        format!("{}n{}", self.name, self.marks)
    }

    /// Makes the call and notes what came of it.
    async fn write(&mut self, write: Write) {
        if self.person.since.is_none_or(|since| since.elapsed() > TOKEN_AGE) {
            self.log_in().await;
        }
        let number = self.journal.begin(&self.person.id, write.clone());
        let grpc = self.dice.random_range(0..100) < self.manner.grpc;
        let insists = matches!(write, Write::Insist { .. });
        let began = Instant::now();
        let outcome = loop {
            let outcome = self.send(&write, grpc).await;
            // Of one key there is one post, however often it is asked for.
            if !insists || matches!(outcome, Outcome::Acknowledged) || began.elapsed() > PATIENCE {
                break outcome;
            }
            tokio::time::sleep(BEFORE_AGAIN).await;
        };
        self.journal.end(number, outcome);
    }

    async fn log_in(&mut self) {
        let number = self.journal.begin(&self.person.id, Write::LogIn);
        let outcome = self.send(&Write::LogIn, false).await;
        self.journal.end(number, outcome);
    }

    /// Sends a call to the edges in turn until one takes it.
    async fn send(&mut self, write: &Write, grpc: bool) -> Outcome {
        let began = Instant::now();
        loop {
            match request(&self.edges[self.at], &self.person, write, grpc).await {
                Reply::Done(answer) => {
                    self.learn(write, &answer);
                    return Outcome::Acknowledged;
                }
                Reply::Refused(refusal) => return Outcome::Refused(refusal),
                Reply::Lost(reason) => return Outcome::Unknown(reason),
                Reply::Untouched if began.elapsed() > PATIENCE => {
                    return Outcome::Unknown("no edge took it".to_owned());
                }
                Reply::Untouched => {
                    self.journal.moved();
                    self.at = (self.at + 1) % self.edges.len();
                    tokio::time::sleep(BEFORE_NEXT).await;
                }
            }
        }
    }

    fn learn(&mut self, write: &Write, answer: &Value) {
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned();
        match write {
            Write::Create { .. } | Write::Insist { .. } => self.drafts.push(text("id")),
            Write::Publish { post } => self.published.push(post.clone()),
            Write::LogIn => {
                self.person.token = text("accessToken");
                self.person.since = Some(Instant::now());
            }
            _ => {}
        }
        for posts in [&mut self.drafts, &mut self.published] {
            if posts.len() > REMEMBERED {
                posts.remove(0);
            }
        }
    }
}

/// Makes the call that a write stands for, in one of the two ways where there are two.
async fn request(edge: &Edge, person: &Person, write: &Write, over_grpc: bool) -> Reply {
    let post = |path: &str, body: Value| edge.call(Method::POST, path).json(&body);
    let call = match write {
        Write::Create { mark } | Write::Insist { mark } if over_grpc => {
            let request_id = if matches!(write, Write::Insist { .. }) { mark.clone() } else { String::new() };
            let (title, markdown) = (mark.clone(), mark.clone());
            let message = CreatePostRequest { title, markdown, request_id, ..CreatePostRequest::default() };
            return grpc(edge.posts().create_post(authorised(person, message)).await.map(|post| post.into_inner().id));
        }
        Write::Publish { post: id } if over_grpc => {
            let message = PublishPostRequest { post_id: id.clone(), ..PublishPostRequest::default() };
            return grpc(edge.posts().publish_post(authorised(person, message)).await.map(|post| post.into_inner().id));
        }
        Write::Create { mark } => post("/api/v1/posts", json!({"title": mark, "markdown": mark})),
        Write::Insist { mark } => post("/api/v1/posts", json!({"title": mark, "markdown": mark, "requestId": mark})),
        Write::Edit { post, mark } => {
            edge.call(Method::PATCH, &format!("/api/v1/posts/{post}")).json(&json!({"markdown": mark}))
        }
        Write::Publish { post: id } => post(&format!("/api/v1/posts/{id}:publish"), json!({})),
        Write::Like { post } => edge.call(Method::PUT, &format!("/api/v1/posts/{post}/like")),
        Write::Rename { mark } => edge.call(Method::PATCH, "/api/v1/users/me").json(&json!({"displayName": mark})),
        Write::Register { mark } => {
            let body = json!({"email": address(mark), "password": PASSWORD, "displayName": mark});
            return rest(post("/api/v1/auth/register", body)).await;
        }
        Write::Suspend { user } => post(&format!("/api/v1/users/{user}:suspend"), json!({"reason": "a fault run"})),
        Write::Reinstate { user } => post(&format!("/api/v1/users/{user}:reinstate"), json!({})),
        Write::LogIn => {
            let body = json!({"email": person.email, "password": person.password});
            return rest(post("/api/v1/auth/login", body)).await;
        }
    };
    rest(call.token(&person.token)).await
}

/// The address of somebody whom a client registers.
pub(super) fn address(mark: &str) -> String {
    format!("{mark}@example.org")
}

fn authorised<T>(person: &Person, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {}", person.token).parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn rest(call: Call) -> Reply {
    match call.try_send().await {
        Ok(answer) if answer.status.is_success() => Reply::Done(answer.json()),
        Ok(answer) => Reply::Refused(refusal(&answer)),
        Err(error) if error.is_connect() || untouched(&error) => Reply::Untouched,
        Err(error) => Reply::Lost(chain(&error)),
    }
}

fn refusal(answer: &Answer) -> Refusal {
    // Whatever is not Guildhall's problem document is shown as it is.
    let problem = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let reason = problem["reason"].as_str().map_or_else(|| answer.text(), str::to_owned);
    Refusal { status: answer.status.as_u16(), reason, retry_after: answer.header("retry-after").is_some() }
}

fn grpc(outcome: Result<String, Status>) -> Reply {
    match outcome {
        Ok(id) => Reply::Done(json!({"id": id})),
        // A status that the other end sent has no source.
        Err(status) if status.source().is_some() && untouched(&status) => Reply::Untouched,
        Err(status) if status.source().is_some() => Reply::Lost(chain(&status)),
        Err(status) => {
            let problem = Problem::from(&status);
            Reply::Refused(Refusal {
                status: problem.reason().http_status(),
                reason: problem.reason().name().to_owned(),
                retry_after: problem.retry_delay().is_some(),
            })
        }
    }
}

/// Whether the other end has provably not looked at the call: there was none, or it said with its GOAWAY that it takes no more.
fn untouched(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let refused =
            cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::ConnectionRefused);
        let unsent = cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let turned_away = cause.downcast_ref::<h2::Error>().is_some_and(|h2| {
            h2.is_remote()
                && (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)
                    || h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM))
        });
        refused || unsent || turned_away
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
