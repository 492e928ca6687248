//! The service, its callers, its mails and its clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::FirstAdmin;
use chassis::{Bound, Platform, config::Overrides};
use contracts::auth::v1::{
    GetMeRequest, LoginRequest, LoginResponse, RegisterRequest, User, VerifyEmailRequest,
    account_service_client::AccountServiceClient, token_service_client::TokenServiceClient,
};
use events::{DeadLetters, Delivery, Envelope, Failure, Handler, Running, Subscription};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use ids::ManualClock;
use limit::{InProcess, OnRedis};
use mesh::Channel;
use serde_json::Value;
use status::{Problem, Reason};
use tempfile::TempDir;
use testkit::{Backend, Mesh, Service, TestDb};
use tonic::{Request, Response, Status};
use tower::ServiceExt;

pub(crate) const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) clock: Arc<ManualClock>,
    /// The address and the password of the admin that the start made.
    pub(crate) first_admin: Option<(String, String)>,
    events: Arc<Mutex<Vec<Envelope>>>,
    _recording: Running,
    service: Service,
    edge: Channel,
    mail: TempDir,
    database: TestDb,
}

/// One of several processes of the service.
pub(crate) struct Replica {
    edge: Channel,
    _service: Service,
    _database: Arc<TestDb>,
}

/// Somebody who has logged in.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// What `/oauth2/…` answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

struct Recorder(Arc<Mutex<Vec<Envelope>>>);

#[tonic::async_trait]
impl Handler for Recorder {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        let mut events = self.0.lock().unwrap();
        // A broadcast may come twice.
        if events.iter().all(|of| of.id != event.id) {
            events.push(event.clone());
        }
        Ok(())
    }
}

const RECORDING: Subscription = Subscription {
    consumer: "test.recorder",
    topics: &[
        "auth.user.registered",
        "auth.user.updated",
        "auth.user.suspended",
        "auth.user.reinstated",
        "auth.token.revoked",
    ],
    delivery: Delivery::Broadcast { replay: Duration::ZERO },
};

impl World {
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::with(backend, |settings| settings).await
    }

    /// With other settings than a test usually has.
    pub(crate) async fn with(backend: Backend, settings: impl FnOnce(Overrides) -> Overrides) -> Self {
        let clock = Arc::new(ManualClock::new(ids::Source::system().now()));
        let mesh = Mesh::with_clock(Arc::clone(&clock)).await;
        // The service opens the database itself, and SQLite admits one process at a time.
        let database = store::testing::database(backend, &[]).await;
        database.close().await;
        let mail = TempDir::new().unwrap();
        let events = Arc::default();
        let recorder = Arc::new(Recorder(Arc::clone(&events)));
        let bus: Arc<dyn events::Bus> = mesh.bus();
        let recording = bus.subscribe(RECORDING, recorder, DeadLetters::log_only()).await.unwrap();
        let (service, first_admin) = serve(&mesh, settings(usual_settings(&database, &mail))).await;
        let edge = mesh.channel("edge-gateway", "auth").await;
        Self { mesh, clock, first_admin, events, _recording: recording, service, edge, mail, database }
    }

    /// The same world, served by a new process.
    pub(crate) async fn restart(self, settings: impl FnOnce(Overrides) -> Overrides) -> Self {
        self.service.stop().await.unwrap();
        let (service, first_admin) = serve(&self.mesh, settings(usual_settings(&self.database, &self.mail))).await;
        let edge = self.mesh.channel("edge-gateway", "auth").await;
        Self { first_admin, service, edge, ..self }
    }

    /// So many replicas of the service that start at once on a new database and one Redis, and channels to them.
    pub(crate) async fn replicas(&self, count: usize) -> Vec<Replica> {
        let database = store::testing::database(Backend::Postgres, &[]).await;
        let settings = usual_settings(&database, &self.mail);
        let keyspace = keyspace::testing::keyspace();
        let bounds = futures_util::future::join_all((0..count).map(|_| async {
            let alone = self.mesh.platform("auth").await;
            let here = InProcess::new(limit::CAPACITY, alone.source.clone());
            let limits = OnRedis::new(keyspace.clone(), &alone.key.derive("limits"), here).patience(PATIENCE);
            build(Platform { limits: Arc::new(limits), keyspace: Some(keyspace.clone()), ..alone }, &settings).await
        }))
        .await;
        let services = futures_util::future::join_all(bounds.into_iter().map(|(bound, _)| async {
            let address = bound.address();
            (self.mesh.serve(bound).await, address)
        }))
        .await;
        let database = Arc::new(database);
        let mut replicas = Vec::new();
        for (service, address) in services {
            self.mesh.services().set("auth", address);
            let edge = self.mesh.channel("edge-gateway", "auth").await;
            replicas.push(Replica { edge, _service: service, _database: Arc::clone(&database) });
        }
        replicas
    }

    pub(crate) fn accounts(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.edge.clone())
    }

    pub(crate) async fn tokens(&self, workload: &str) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.mesh.channel(workload, "auth").await)
    }

    /// A request in a person's name.
    pub(crate) fn by<T>(&self, person: &Person, message: T) -> Request<T> {
        self.mesh.as_user(&person.access, message)
    }

    pub(crate) async fn register(&self, email: &str) {
        self.accounts().register(registration(email)).await.unwrap();
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<LoginResponse, Status> {
        login(self.accounts(), email, password).await
    }

    /// Logs in and finds out who that is.
    pub(crate) async fn person(&self, email: &str, password: &str) -> Person {
        let LoginResponse { access_token, refresh_token, .. } = self.login(email, password).await.unwrap();
        let mut person = Person { id: String::new(), access: access_token, refresh: refresh_token };
        person.id = self.me(&person).await.unwrap().id;
        person
    }

    /// A new member whose address is verified, logged in.
    pub(crate) async fn member(&self, email: &str) -> Person {
        self.register(email).await;
        let code = self.code(email, "Verify your e-mail address", 1).await;
        self.accounts().verify_email(VerifyEmailRequest { code }).await.unwrap();
        self.person(email, PASSWORD).await
    }

    pub(crate) async fn admin(&self) -> Person {
        let (email, password) = self.first_admin.as_ref().expect("the first start makes an admin");
        self.person(email, password).await
    }

    pub(crate) async fn me(&self, person: &Person) -> Result<User, Status> {
        self.accounts().get_me(self.by(person, GetMeRequest {})).await.map(Response::into_inner)
    }

    /// The bodies of the mails to this address about this, oldest first.
    pub(crate) fn mails(&self, to: &str, subject: &str) -> Vec<String> {
        let mut paths: Vec<_> = std::fs::read_dir(self.mail.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        paths.sort();
        let mails = paths.iter().map(|path| std::fs::read_to_string(path).unwrap());
        mails
            .filter(|mail| mail.contains(&format!("To: {to}\r\n")) && mail.contains(&format!("Subject: {subject}\r\n")))
            .collect()
    }

    /// The code in the `nth` mail to this address about this, once it has arrived.
    pub(crate) async fn code(&self, to: &str, subject: &str, nth: usize) -> String {
        let mail = eventually("the mail", async || self.mails(to, subject).into_iter().nth(nth - 1)).await;
        mail.lines()
            .find(|line| line.len() == 43 && !line.contains(' '))
            .expect("a code stands alone on its line")
            .to_owned()
    }

    /// The keys of the events of this topic so far.
    pub(crate) fn events(&self, topic: &str) -> Vec<String> {
        self.events.lock().unwrap().iter().filter(|event| event.topic == topic).map(|event| event.key.clone()).collect()
    }

    /// Waits until the event has been published so often.
    pub(crate) async fn heard(&self, topic: &str, key: &str, times: usize) {
        let count = || self.events(topic).iter().filter(|of| *of == key).count();
        eventually(topic, async || (count() >= times).then_some(())).await;
        assert_eq!(count(), times, "{topic} of {key}");
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http(Method::GET, path, &[], String::new()).await
    }

    /// Posts a form to `/oauth2/token`.
    pub(crate) async fn post_token(&self, form: &[(&str, &str)]) -> Answer {
        post_token(self.edge.clone(), form).await
    }

    /// Uses a refresh token.
    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        refresh(self.edge.clone(), token).await
    }

    pub(crate) async fn http(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        send(self.edge.clone(), method, path, headers, body).await
    }
}

impl Replica {
    pub(crate) fn accounts(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.edge.clone())
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<LoginResponse, Status> {
        login(self.accounts(), email, password).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        refresh(self.edge.clone(), token).await
    }

    /// The ids of the keys that it publishes.
    pub(crate) async fn kids(&self) -> Vec<String> {
        kids_of(&send(self.edge.clone(), Method::GET, "/oauth2/jwks", &[], String::new()).await.body)
    }
}

async fn login(
    mut accounts: AccountServiceClient<Channel>,
    email: &str,
    password: &str,
) -> Result<LoginResponse, Status> {
    let request = LoginRequest { email: email.into(), password: password.into() };
    accounts.login(request).await.map(Response::into_inner)
}

async fn refresh(edge: Channel, token: &str) -> Answer {
    post_token(edge, &[("grant_type", "refresh_token"), ("client_id", "guildhall"), ("refresh_token", token)]).await
}

async fn post_token(edge: Channel, form: &[(&str, &str)]) -> Answer {
    let pairs: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+"))).collect();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    send(edge, Method::POST, "/oauth2/token", &headers, pairs.join("&")).await
}

async fn send(edge: Channel, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Full::from(body))).unwrap();
    let (head, body) = edge.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Answer { status: head.status, headers: head.headers, body }
}

fn usual_settings(database: &TestDb, mail: &TempDir) -> Overrides {
    testkit::overrides()
        .set("issuer", testkit::ISSUER)
        .set("database.url", database.url())
        .set("first_admin", "root@example.org")
        .set("mail.directory", mail.path().display().to_string())
        .set("signing_keys.check_every", "50ms")
        .set("password.memory_kib", 64)
        .set("password.iterations", 1)
}

async fn serve(mesh: &Mesh, settings: Overrides) -> (Service, Option<(String, String)>) {
    let (bound, first_admin) = build(mesh.platform("auth").await, &settings).await;
    let first_admin = first_admin.map(|admin| (admin.email.clone(), admin.password().to_owned()));
    (mesh.serve(bound).await, first_admin)
}

async fn build(platform: Platform, settings: &Overrides) -> (Bound, Option<FirstAdmin>) {
    let config = chassis::config::load(auth::DEFAULTS, "auth", None, settings).unwrap();
    auth::build(config, platform).await.unwrap()
}

pub(crate) fn registration(email: &str) -> RegisterRequest {
    RegisterRequest { email: email.into(), password: PASSWORD.into(), display_name: "Ada".into() }
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let answered = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Why a call was refused.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Problem {
    Problem::from(&outcome.expect_err("the call is refused"))
}

#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, reason: Reason) {
    assert_eq!(refusal(outcome).reason(), reason);
}

/// The ids of the keys of a JWKS.
pub(crate) fn kids_of(jwks: &Value) -> Vec<String> {
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The id of the key that signed a JWT.
pub(crate) fn kid_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// The payload of a JWT.
pub(crate) fn claims(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap()
}
