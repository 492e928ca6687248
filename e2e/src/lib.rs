//! Runs `guildhall dev` as a user does, as a process of its own, and talks to it over REST and gRPC.
//!
//! To add a journey: a file in `tests/it/`, starting with [`guildhall!`]. What is broken on purpose is in [`faults`].

pub mod bench;
pub mod faults;
pub mod process;
pub mod raw;
mod rest;
pub mod token;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use guildhall::DevFile;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::process::Command;

use process::Process;
pub use rest::{Answer, Call};

/// Starts a fresh `guildhall dev`.
#[macro_export]
macro_rules! guildhall {
    () => {
        $crate::Guildhall::start(env!("CARGO_BIN_EXE_guildhall-under-test").as_ref(), "127.0.0.1:0").await
    };
}

/// A running `guildhall dev`; dropping it kills it.
pub struct Guildhall {
    program: PathBuf,
    process: Process,
    /// Kept for as long as this lives.
    directory: TempDir,
    pub dev: DevFile,
    site: Site,
}

/// An edge, as its clients see it.
pub struct Site {
    http: String,
    client: reqwest::Client,
}

/// Somebody who has registered and logged in.
pub struct Person {
    pub id: String,
    pub email: String,
    pub token: String,
    pub refresh_token: String,
}

/// The password of every person of these tests.
pub const PASSWORD: &str = "correct horse battery staple";

impl Guildhall {
    /// Starts on an empty directory, with the edge at `http`, and waits until everything is ready.
    pub async fn start(program: &Path, http: &str) -> Self {
        Self::start_with(program, http, |process| process).await
    }

    /// The same, with more in its environment, or with what it prints kept.
    pub async fn start_with(program: &Path, http: &str, configure: impl FnOnce(Process) -> Process) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let arguments = ["dev", "--http", http, "--data-dir"].map(str::to_owned);
        let mut process =
            Process::new("guildhall dev", program, arguments.into_iter().chain([data.display().to_string()]))
                .set("GUILDHALL_LOG", "error");
        for service in ["AUTH", "CONTENT"] {
            process = process.set(format!("GUILDHALL__{service}__SERVER__LISTEN"), "127.0.0.1:0");
        }
        let mut process = configure(process);
        let dev = ready(&mut process, &data).await;
        let site = Site::new(&dev.http);
        Self { program: program.to_owned(), process, directory, dev, site }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Ends the process at once, as a crash does.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Asks the process to end, as an operator does, and waits for it.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process.stop().await
    }

    /// Starts the process again on the same data.
    pub async fn restart(&mut self) {
        self.dev = ready(&mut self.process, &self.directory.path().join("data")).await;
        self.site = Site::new(&self.dev.http);
    }

    /// Runs another command of the same program against this data directory.
    pub async fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = self.program();
        command.args(arguments).arg("--data-dir").arg(self.data()).stdin(Stdio::null());
        command.output().await.expect("the program runs")
    }

    /// The program itself, to be run in another way.
    pub fn program(&self) -> Command {
        process::command(&self.program)
    }

    /// An access token of the first admin.
    pub async fn admin(&self) -> String {
        let admin = self.dev.admin.as_ref().expect("dev.json holds the first admin");
        self.log_in(&admin.email, &admin.password).await["accessToken"].as_str().expect("a token").to_owned()
    }

    /// A service's database, as an operator opens it beside the running service.
    pub async fn database(&self, service: &str) -> SqliteConnection {
        let path = self.data().join(format!("{service}.db"));
        SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("the database can be opened")
    }
}

impl Deref for Guildhall {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Site {
    /// The edge at this URL.
    pub fn new(http: &str) -> Self {
        // Each test speaks for itself alone: no connection survives the process it was opened to.
        let client = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self { http: http.to_owned(), client }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests write the body in place")]
    pub fn post(&self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(&body)
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests write the body in place")]
    pub fn patch(&self, path: &str, body: Value) -> Call {
        self.call(Method::PATCH, path).json(&body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self.client.request(method, format!("{}{path}", self.http)))
    }

    /// Registers somebody and logs them in.
    pub async fn member(&self, name: &str) -> Person {
        let email = format!("{}@example.org", name.to_lowercase());
        let body = json!({"email": email, "password": PASSWORD, "displayName": name});
        self.post("/api/v1/auth/register", body).send().await.expect_status(200);
        let login = self.log_in(&email, PASSWORD).await;
        let text = |field: &str| login[field].as_str().expect("a string").to_owned();
        let (token, refresh_token) = (text("accessToken"), text("refreshToken"));
        let me = self.get("/api/v1/users/me").token(&token).send().await.expect_status(200).json();
        Person { id: me["id"].as_str().expect("an id").to_owned(), email, token, refresh_token }
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Value {
        self.post("/api/v1/auth/login", json!({"email": email, "password": password}))
            .send()
            .await
            .expect_status(200)
            .json()
    }

    /// What `/oauth2/token` answers to a refresh token, which may ask for less than it has.
    pub async fn refresh(&self, refresh_token: &str, scope: Option<&str>) -> Answer {
        let scope = scope.map(|scope| format!("&scope={scope}")).unwrap_or_default();
        let form = format!("grant_type=refresh_token&client_id=guildhall&refresh_token={refresh_token}{scope}");
        self.call(Method::POST, "/oauth2/token").body("application/x-www-form-urlencoded", form).send().await
    }

    /// Writes and publishes a post, and answers it.
    pub async fn published(&self, token: &str, title: &str, markdown: &str) -> Value {
        let draft = self.post("/api/v1/posts", json!({"title": title, "markdown": markdown})).token(token).send().await;
        let draft = draft.expect_status(200).json();
        let path = format!("/api/v1/posts/{}:publish", draft["id"].as_str().expect("an id"));
        self.post(&path, json!({})).token(token).send().await.expect_status(200).json()
    }
}

/// Asks again until `condition` holds, for what becomes true soon after a call; fails after `limit`.
pub async fn eventually<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = condition().await {
            return result;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts `guildhall dev` and waits until every part of it is ready.
async fn ready(process: &mut Process, data: &Path) -> DevFile {
    process.start();
    let pid = process.id().expect("a new process has an id");
    process
        .until(async || {
            // The file of an earlier run may still be there.
            let dev = DevFile::read(data).ok().filter(|dev| dev.pid == pid)?;
            for admin in dev.services.values().map(|service| &service.admin).chain([&dev.http_admin]) {
                reqwest::get(format!("{admin}/readyz")).await.ok()?.error_for_status().ok()?;
            }
            Some(dev)
        })
        .await
}
