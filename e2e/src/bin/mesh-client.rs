//! Who calls in `cargo xtask mesh test`: a person over REST, and workloads whose SVIDs come from SPIRE's agent. The run starts
//! each under a user of its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contracts::content::v1::ListPostsRequest;
use contracts::content::v1::post_service_client::PostServiceClient;
use mesh::{Identity, IdentitySettings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, stdin};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: mesh-client journey URL | call ENDPOINT ADDRESS | load ENDPOINT ADDRESS URL";
const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "correct horse battery staple";
/// Callers at the same time: enough to be inside a handshake whenever something rotates, and not so many that two slow cores are
/// what is measured.
const MESH_CALLERS: usize = 4;
const READERS: usize = 2;
/// Between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two writes of the one writer.
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// No call of this load takes longer unless something hangs.
const LIMIT: Duration = Duration::from_secs(10);
/// A token lives for ten minutes.
const LOG_IN_EVERY: Duration = Duration::from_mins(4);
/// How often the load looks whether it has a new SVID, and how often it says how far it is.
const LOOK: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_mins(1);
/// Failures that are shown one by one.
const SHOWN: u64 = 20;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["journey", url] => journey(url).await,
        ["call", endpoint, address] => call(endpoint, address).await,
        ["load", endpoint, address, url] => load(endpoint, address, url).await,
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Registers, logs in, posts, publishes and reads.
async fn journey(url: &str) -> Result<()> {
    let person = Person { http: http()?, url: url.to_owned() };
    let register = json!({"email": EMAIL, "password": PASSWORD, "displayName": "Ada"});
    person.send(Method::POST, "/api/v1/auth/register", None, Some(&register)).await?;
    println!("registered {EMAIL}");
    let token = person.log_in().await?;
    println!("logged in");
    let draft = json!({"title": "Hello, SPIRE", "markdown": "A *first* post.\n"});
    let draft = person.send(Method::POST, "/api/v1/posts", Some(&token), Some(&draft)).await?;
    let path = format!("/api/v1/posts/{}", text(&draft, "id")?);
    person.send(Method::POST, &format!("{path}:publish"), Some(&token), Some(&json!({}))).await?;
    let read = person.send(Method::GET, &path, None, None).await?;
    println!("posted, published and read: \"{}\", {}", text(&read, "title")?, text(&read, "state")?);
    Ok(())
}

/// One call to content as whoever the agent says this process is, and what came of it.
async fn call(endpoint: &str, address: &str) -> Result<()> {
    let identity = identity(endpoint).await?;
    let outcome = match list_posts(&identity, address).await {
        Ok(()) => "OK".to_owned(),
        Err(status) => format!("{:?}", status.code()),
    };
    println!("{} {outcome}", identity.spiffe_id());
    Ok(())
}

/// Calls until stdin ends: content over the mesh and the edge over REST, each call on a connection of its own, and writes.
async fn load(endpoint: &str, address: &str, url: &str) -> Result<()> {
    let identity = identity(endpoint).await?;
    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for _ in 0..MESH_CALLERS {
        let (identity, address) = (identity.clone(), address.to_owned());
        callers.spawn(repeat("mesh", PAUSE, tally.clone(), move || {
            let (identity, address) = (identity.clone(), address.clone());
            async move { Ok(list_posts(&identity, &address).await?) }
        }));
    }
    for _ in 0..READERS {
        let person = Person { http: http()?, url: url.to_owned() };
        callers.spawn(repeat("read", PAUSE, tally.clone(), move || {
            let person = person.clone();
            async move { person.send(Method::GET, "/api/v1/posts?pageSize=1", None, None).await.map(drop) }
        }));
    }
    let writer = Arc::new(Writer { person: Person { http: http()?, url: url.to_owned() }, token: RwLock::default() });
    writer.log_in().await?;
    callers.spawn(repeat("log-in", LOG_IN_EVERY, tally.clone(), {
        let writer = writer.clone();
        move || {
            let writer = writer.clone();
            async move { writer.log_in().await }
        }
    }));
    callers.spawn(repeat("write", WRITE_PAUSE, tally.clone(), move || {
        let writer = writer.clone();
        async move { writer.write().await }
    }));

    let (mut seen, mut rotations, mut reported) = (identity.leaf_expiry(), 0_u64, Instant::now());
    let mut ended = Box::pin(async {
        // Nothing is ever written to it: it ends when the run wants the load to.
        stdin().read_to_end(&mut Vec::new()).await.map(drop)
    });
    while timeout(LOOK, &mut ended).await.is_err() {
        let expiry = identity.leaf_expiry();
        if expiry != seen {
            (seen, rotations) = (expiry, rotations + 1);
        }
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            println!("    so far: {tally}");
        }
    }
    tally.stop.send_replace(true);
    callers.join_all().await;
    println!("    {tally}");
    println!("    the load's own SVID was renewed at least {rotations} times (they expire at whole seconds)");
    if tally.failures() > 0 {
        return Err(format!("{} calls failed", tally.failures()).into());
    }
    Ok(())
}

async fn repeat<F, C>(kind: &'static str, pause: Duration, tally: Arc<Tally>, mut call: F)
where
    F: FnMut() -> C + Send,
    C: Future<Output = Result<()>> + Send,
{
    let mut stopped = tally.stop.subscribe();
    while !*stopped.borrow() {
        let began = Instant::now();
        let result = timeout(LIMIT, call()).await;
        tally.add(kind, began.elapsed(), result.unwrap_or_else(|_| Err(format!("no answer in {LIMIT:?}").into())));
        let _ = timeout(pause, stopped.changed()).await;
    }
}

/// What came of the calls of each kind.
#[derive(Default)]
struct Tally {
    kinds: Mutex<BTreeMap<&'static str, Outcome>>,
    /// Whether the callers shall stop.
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Outcome {
    calls: u64,
    failures: u64,
    slowest: Duration,
}

impl Tally {
    fn add(&self, kind: &'static str, took: Duration, result: Result<()>) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = kinds.entry(kind).or_default();
        outcome.calls += 1;
        outcome.slowest = outcome.slowest.max(took);
        if let Err(error) = result {
            outcome.failures += 1;
            if outcome.failures <= SHOWN {
                println!("    FAILED {kind} after {took:?}: {error}");
            }
        }
    }

    fn failures(&self) -> u64 {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).values().map(|outcome| outcome.failures).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = kinds.iter().map(|(kind, Outcome { calls, failures, slowest })| {
            format!("{kind}: {calls} calls, {failures} failed, slowest {} ms", slowest.as_millis())
        });
        f.write_str(&shown.collect::<Vec<_>>().join("; "))
    }
}

async fn identity(endpoint: &str) -> Result<Identity> {
    let settings = IdentitySettings {
        endpoint: endpoint.to_owned(),
        trust_domain: "guildhall.internal".to_owned(),
        namespace: "guildhall".to_owned(),
    };
    Ok(Identity::connect(settings).await?)
}

/// On a connection of its own, which may be dialled again; the request is sent once.
async fn list_posts(identity: &Identity, address: &str) -> std::result::Result<(), tonic::Status> {
    let invalid = |_| tonic::Status::invalid_argument("the address is host:port");
    let server = "content".parse().expect("a workload's name");
    let settings = mesh::Settings { retry: false, ..Default::default() };
    let channel = mesh::connect_with(identity, server, address.parse().map_err(invalid)?, &settings);
    let request = ListPostsRequest { page_size: 1, ..Default::default() };
    PostServiceClient::new(channel).list_posts(request).await.map(drop)
}

/// A client whose every request has a connection of its own, and is sent once.
fn http() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).retry(reqwest::retry::never());
    Ok(client.build()?)
}

#[derive(Clone)]
struct Person {
    http: reqwest::Client,
    url: String,
}

impl Person {
    async fn log_in(&self) -> Result<String> {
        let login = json!({"email": EMAIL, "password": PASSWORD});
        text(&self.send(Method::POST, "/api/v1/auth/login", None, Some(&login)).await?, "accessToken")
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        if status != StatusCode::OK {
            return Err(format!("{path} answered {status}: {body}").into());
        }
        Ok(serde_json::from_str(&body)?)
    }
}

/// A person who writes for longer than a token lives.
struct Writer {
    person: Person,
    token: RwLock<String>,
}

impl Writer {
    async fn log_in(&self) -> Result<()> {
        *self.token.write().await = self.person.log_in().await?;
        Ok(())
    }

    async fn write(&self) -> Result<()> {
        let draft = json!({"title": "A thought", "markdown": "Under load.\n"});
        let token = self.token.read().await.clone();
        self.person.send(Method::POST, "/api/v1/posts", Some(&token), Some(&draft)).await.map(drop)
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().ok_or_else(|| format!("there is no {field} in {value}"))?.to_owned())
}
