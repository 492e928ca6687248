//! An edge, the services behind it, and a client in front of it.

use std::{sync::Arc, time::Duration};

use chassis::Platform;
use contracts::Role;
use edge_gateway::Config;
use ids::{ManualClock, Timestamp, UserId, Uuid};
use keyspace::Keyspace;
use limit::{InProcess, OnRedis};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use testkit::{Mesh, Service, TokenSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::upstream::{self, Upstream};

pub struct Edge {
    pub mesh: Mesh,
    pub service: Service,
    pub upstream: Upstream,
    pub client: Client,
}

/// How long anything in these tests may take that should be quick.
pub const SOON: Duration = Duration::from_secs(10);

impl Edge {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// An edge with other settings than the defaults.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Mesh::start().await, change).await
    }

    /// An edge whose time stands still until the test moves it.
    pub async fn with_clock(change: impl FnOnce(&mut Config)) -> (Self, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        (Self::on(Mesh::with_clock(Arc::clone(&clock)).await, change).await, clock)
    }

    /// An edge that keeps its buckets in this Redis.
    pub async fn on_redis(keyspace: Keyspace, change: impl FnOnce(&mut Config)) -> Self {
        let mesh = Mesh::start().await;
        let alone = mesh.platform(edge_gateway::NAME).await;
        let here = InProcess::new(limit::CAPACITY, alone.source.clone());
        let limits = Arc::new(OnRedis::new(keyspace, &alone.key.derive("limits"), here).patience(SOON));
        Self::build(mesh, Platform { limits, ..alone }, change).await
    }

    async fn on(mesh: Mesh, change: impl FnOnce(&mut Config)) -> Self {
        let platform = mesh.platform(edge_gateway::NAME).await;
        Self::build(mesh, platform, change).await
    }

    async fn build(mesh: Mesh, platform: Platform, change: impl FnOnce(&mut Config)) -> Self {
        let upstream = upstream::serve(&mesh).await;
        let mut config: Config =
            chassis::config::load(edge_gateway::DEFAULTS, edge_gateway::NAME, None, &testkit::overrides())
                .expect("the defaults are complete");
        testkit::ISSUER.clone_into(&mut config.issuer);
        change(&mut config);
        let bound = edge_gateway::build(config, platform).await.expect("the edge binds");
        let service = mesh.serve(bound).await;
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(SOON).build().expect("a client");
        Self { mesh, service, upstream, client }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.address())
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }

    /// A member's token.
    pub fn token(&self) -> String {
        self.mesh.token(&TokenSpec::member(user()))
    }

    pub fn admin_token(&self) -> String {
        self.mesh.token(&TokenSpec { role: Role::Admin, ..TokenSpec::member(user()) })
    }

    /// Sends bytes as they are, and reads what comes back until the edge closes the connection.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.service.address()).await.expect("the port is open");
        stream.write_all(bytes).await.expect("the edge reads");
        read_to_end(stream).await
    }
}

pub async fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the edge closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn user() -> UserId {
    UserId::from(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001))
}

/// A status and a problem: checks that it is one, and gives its members.
pub async fn problem(response: Response) -> Value {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{status}");
    let id = response.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], id);
    assert_eq!(problem["type"], format!("/docs/errors/{}", problem["reason"].as_str().expect("a reason")));
    problem
}

/// Sends, and checks status and reason of the problem that comes back.
pub async fn refused(request: RequestBuilder, status: u16, reason: &str) -> Value {
    let response = request.send().await.expect("an answer");
    let got = response.status().as_u16();
    let problem = problem(response).await;
    assert_eq!((got, problem["reason"].as_str()), (status, Some(reason)), "{problem}");
    problem
}
