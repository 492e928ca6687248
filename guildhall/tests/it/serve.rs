//! The services as processes of their own, on PostgreSQL, Redis and an agent.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chassis::config::{self, Overrides};
use chassis::process;
use serde_json::{Value, json};
use store::testing::{Backend, TestDb, database};
use tempfile::TempDir;

use crate::agent;
use crate::program::{Process, answer, complaint, eventually, program};

/// What a deployment has before its services: databases, identities, a key, a file of settings.
struct Deployment {
    home: TempDir,
    _databases: [TestDb; 2],
    _agent: Process,
    public: SocketAddr,
    admin: [(&'static str, SocketAddr); 3],
}

/// An address that nobody has.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn redis() -> String {
    std::env::var(keyspace::testing::REDIS).expect("GUILDHALL_TEST_REDIS names the Redis server to test on")
}

impl Deployment {
    async fn new() -> Self {
        let home = TempDir::new().unwrap();
        let databases = [database(Backend::Postgres, &[]).await, database(Backend::Postgres, &[]).await];
        let agent = agent::started(&home.path().join("agent"), "auth,content,edge-gateway,operator", "1m").await;
        let [public, auth, content, edge_admin, auth_admin, content_admin] = [(); 6].map(|()| free());
        let issuer = format!("http://localhost:{}", public.port());
        let file = format!(
            r#"
            [platform]
            master_key_file = "{home}/master.key"
            redis = {{ urls = "{redis}", prefix = "{home}" }}
            services = {{ auth = "{auth}", content = ["{content}"] }}
            [auth]
            issuer = "{issuer}"
            first_admin = "admin@example.org"
            require_verified_email = false
            mail.directory = "{home}/mail"
            server = {{ listen = "{auth}", admin_listen = "{auth_admin}", drain.unready = "0s" }}
            database.url = "{}"
            [content]
            issuer = "{issuer}"
            server = {{ listen = "{content}", admin_listen = "{content_admin}", drain.unready = "0s" }}
            database.url = "{}"
            [edge-gateway]
            issuer = "{issuer}"
            server = {{ listen = "{public}", admin_listen = "{edge_admin}", drain.unready = "0s" }}
            "#,
            databases[0].url(),
            databases[1].url(),
            home = home.path().display(),
            redis = redis(),
        );
        fs::write(home.path().join("guildhall.toml"), file).unwrap();
        answer(program(&["key"]).arg(home.path().join("master.key")));
        let admin = [("auth", auth_admin), ("content", content_admin), ("edge-gateway", edge_admin)];
        Self { home, _databases: databases, _agent: agent, public, admin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn serve(&self, service: &str, workload: &str) -> Command {
        let mut command = program(&["serve", service]);
        command.env("GUILDHALL_CONFIG", self.path("guildhall.toml"));
        command
            .env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", self.path(&format!("agent/{workload}.sock")).display()));
        command
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Value {
        let call = reqwest::Client::new().post(format!("http://{}{path}", self.public)).json(&body);
        let call = if let Some(token) = token { call.bearer_auth(token) } else { call };
        call.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_are_a_community_and_end_in_order() {
    let deployment = Deployment::new().await;
    let mut said = Vec::new();
    // The edge first: whoever is early waits for the others.
    let mut processes: Vec<_> = ["edge-gateway", "content", "auth"]
        .map(|service| {
            let out = deployment.path(&format!("{service}.log"));
            said.push(out.clone());
            Process::start_into(&mut deployment.serve(service, service), &out)
        })
        .into_iter()
        .collect();
    for (service, admin) in deployment.admin {
        eventually(service, async || {
            reqwest::get(format!("http://{admin}/readyz")).await.ok()?.error_for_status().ok()
        })
        .await;
    }

    let credentials = json!({"email": "ada@example.org", "password": "correct horse battery"});
    let mut ada = credentials.clone();
    ada["displayName"] = "Ada".into();
    deployment.post("/api/v1/auth/register", None, ada).await;
    let login = deployment.post("/api/v1/auth/login", None, credentials).await;
    let bearer = login["accessToken"].as_str().unwrap();
    let token = Some(bearer);
    let post = deployment.post("/api/v1/posts", token, json!({"title": "Hello", "markdown": "*here*"})).await;
    let path = format!("/api/v1/posts/{}:publish", post["id"].as_str().unwrap());
    assert_eq!(deployment.post(&path, token, json!({})).await["state"], "PUBLISHED");
    // Over Redis from auth to the edge: a revoked session is refused there.
    let sessions = reqwest::Client::new();
    let session = format!("http://{}/api/v1/users/me/sessions", deployment.public);
    let listed: Value = sessions.get(&session).bearer_auth(bearer).send().await.unwrap().json().await.unwrap();
    let id = listed["sessions"][0]["id"].as_str().unwrap();
    let ended = sessions.delete(format!("{session}/{id}")).bearer_auth(bearer).send().await.unwrap();
    assert!(ended.status().is_success(), "{}", ended.status());
    eventually("the edge hears that the session is revoked", async || {
        let me = format!("http://{}/api/v1/users/me", deployment.public);
        let refused = sessions.get(me).bearer_auth(bearer).send().await.unwrap();
        (refused.status() == 401).then_some(())
    })
    .await;

    for process in &mut processes {
        assert_eq!(process.stop().await, Some(0));
    }
    let said: Vec<_> = said.iter().map(|log| fs::read_to_string(log).unwrap()).collect();
    for (log, service) in said.iter().zip(["edge-gateway", "content", "auth"]) {
        let at = |line: &str| log.find(line).unwrap_or_else(|| panic!("{service} never said `{line}`:\n{log}"));
        assert!(at(&format!("{service} is ready\"")) < at(&format!("{service} is not ready any more")));
        assert!(at(&format!("{service} is not ready any more")) < at(&format!("{service} has ended")));
    }
    let password =
        said[2].lines().find_map(|line| line.strip_prefix("The first admin is admin@example.org, with the password "));
    let password = password.and_then(|line| line.split(' ').next()).expect("auth prints it once");
    assert_eq!(said.concat().matches(password).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_start_says_what_to_do() {
    let deployment = Deployment::new().await;
    let refused = |change: &dyn Fn(&mut Command)| {
        let mut command = deployment.serve("auth", "auth");
        change(&mut command);
        complaint(&mut command)
    };
    let with = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |command: &mut Command| {
            command.env(name, &value);
        }
    };

    let said = refused(&with("GUILDHALL__AUTH__DATABASE__URL", "sqlite:auth.db"));
    assert!(said.contains("`auth.database.url` is SQLite") && said.contains("guildhall dev"), "{said}");
    assert!(!Path::new("auth.db").exists());
    let said = refused(&|command: &mut Command| {
        command.env_remove("SPIFFE_ENDPOINT_SOCKET");
    });
    assert!(said.contains("set SPIFFE_ENDPOINT_SOCKET") && said.contains("guildhall agent"), "{said}");
    let said = refused(&with("GUILDHALL__PLATFORM__REDIS__URLS", ""));
    assert!(said.contains("`platform.redis.urls` is empty"), "{said}");
    let said = refused(&with("GUILDHALL__PLATFORM__MASTER_KEY_FILE", ""));
    assert!(said.contains("`guildhall key FILE` makes a key"), "{said}");
    let said = refused(&with("GUILDHALL__PLATFORM__SERVICES__CONTENT", "nowhere"));
    assert!(said.contains("`platform.services.content`") && said.contains("`nowhere`"), "{said}");
    let said = refused(&with("GUILDHALL__PLATFORM__NOPE", "1"));
    assert!(said.contains("GUILDHALL__PLATFORM__NOPE"), "{said}");
    let said = complaint(&mut deployment.serve("auth", "content"));
    assert!(said.contains("this is `auth`") && said.contains("the process is `content`"), "{said}");
    let nobody = "postgres://somebody:s3cret@127.0.0.1:1/none";
    let said = refused(&with("GUILDHALL__AUTH__DATABASE__URL", nobody));
    assert!(said.contains("does PostgreSQL run at 127.0.0.1:1/none") && !said.contains("s3cret"), "{said}");

    let key = deployment.path("master.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = complaint(&mut deployment.serve("auth", "auth"));
    assert!(said.contains("chmod 600"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_still_waits_ends_when_it_is_told_to() {
    let deployment = Deployment::new().await;
    let log = deployment.path("log");
    let mut process = Process::start_into(&mut deployment.serve("auth", "nobody"), &log);
    eventually("it waits for its identity", async || {
        fs::read_to_string(&log).unwrap().contains("Waiting for the identity of auth").then_some(())
    })
    .await;
    assert_eq!(process.stop().await, Some(0));
    assert!(!fs::read_to_string(&log).unwrap().contains("Serving"));
}

#[test]
fn the_example_is_valid() {
    let file = Path::new("../guildhall.example.toml");
    process::Settings::load(Some(file)).unwrap();
    let none = Overrides::new();
    config::load::<auth::Config>(auth::DEFAULTS, "auth", Some(file), &none).unwrap();
    config::load::<content::Config>(content::DEFAULTS, "content", Some(file), &none).unwrap();
    config::load::<edge_gateway::Config>(edge_gateway::DEFAULTS, "edge-gateway", Some(file), &none).unwrap();
}
